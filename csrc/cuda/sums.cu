// The sum of clipped rows: float32 products, which are the stored clipped rows, added in float64.
#include "device.cuh"
#include "privkt/grid.h"

namespace privkt {

namespace {

constexpr int kThreads = 256;

// Rows that do not count or are not finite are not read at all: 0 * NaN would be NaN.
__device__ bool counts(const uint8_t *mask, const float *factors, int64_t b) {
  return (mask == nullptr || mask[b] != 0) && factors[b] > 0.0f && factors[b] <= 0x1.fffffep127f;
}

// One thread a column, rows in order b = 0, 1, ...: the CPU's order, hence the CPU's bits.
template <typename T, typename Out>
__global__ void clipped_sum_kernel(const T *data, int64_t batch, int64_t width, int64_t stride, const uint8_t *mask,
                                   const float *factors, Out *out, bool accumulate) {
  for (int64_t j = int64_t(blockIdx.x) * kThreads + threadIdx.x; j < width; j += int64_t(gridDim.x) * kThreads) {
    double sum = 0.0;
    for (int64_t b = 0; b < batch; ++b) {
      if (counts(mask, factors, b)) sum += double(factors[b] * load(data + b * stride, j));
    }
    out[j] = Out(accumulate ? double(out[j]) + sum : sum);
  }
}

// Exact in any order: the bits of the CPU whatever the grid of threads.
template <typename T>
__global__ void grid_sum_kernel(const T *data, int64_t batch, int64_t width, int64_t stride, const uint8_t *mask,
                                const float *factors, int64_t *out, bool accumulate, double scale) {
  int64_t counting = 0;
  for (int64_t b = 0; b < batch; ++b) counting += counts(mask, factors, b);
  const float most = most_product(counting, scale);
  for (int64_t j = int64_t(blockIdx.x) * kThreads + threadIdx.x; j < width; j += int64_t(gridDim.x) * kThreads) {
    double sum = 0.0;
    for (int64_t b = 0; b < batch; ++b) {
      if (counts(mask, factors, b)) sum += cells_of(factors[b] * load(data + b * stride, j), scale, most);
    }
    if (!accumulate) out[j] = 0;
    add_cells(out + j, sum);
  }
}

template <typename T>
int launch(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale,
           cudaStream_t on) {
  const unsigned grid = blocks_for(rows.width, kThreads);
  const T *data = static_cast<const T *>(rows.data);
  if (out_element == Element::int64) {
    grid_sum_kernel<<<grid, kThreads, 0, on>>>(data, rows.batch, rows.width, rows.stride, rows.mask, factors,
                                               static_cast<int64_t *>(out), accumulate, scale);
  } else if (out_element == Element::float64) {
    clipped_sum_kernel<<<grid, kThreads, 0, on>>>(data, rows.batch, rows.width, rows.stride, rows.mask, factors,
                                                  static_cast<double *>(out), accumulate);
  } else {
    clipped_sum_kernel<<<grid, kThreads, 0, on>>>(data, rows.batch, rows.width, rows.stride, rows.mask, factors,
                                                  static_cast<float *>(out), accumulate);
  }
  return int(cudaGetLastError());
}

}  // namespace

int clipped_sum_cuda(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale,
                     void *stream) {
  if (rows.width == 0) return 0;
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  return rows.element == Element::bfloat16 ? launch<uint16_t>(rows, factors, out, out_element, accumulate, scale, on)
                                           : launch<float>(rows, factors, out, out_element, accumulate, scale, on);
}

}  // namespace privkt

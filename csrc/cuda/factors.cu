// Square norms of rows in float64, and the clip factors that follow from them.
#include "device.cuh"
#include "privkt/clip_factor.h"

namespace privkt {

namespace {

constexpr int kThreads = 512;

// One thread block a row, partials joined in a fixed order: the same bits in every run. The bound of clip_factor.h holds for
// any order, so the CPU's sum may differ in its last bits without harm.
template <typename T>
__global__ void row_sqnorms_kernel(const T *data, int64_t batch, int64_t width, int64_t stride, const uint8_t *mask,
                                   double *sqnorms, bool accumulate) {
  __shared__ double partial[kThreads];
  for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
    const bool counts = mask == nullptr || mask[b] != 0;
    double sum = 0.0;
    if (counts) {
      const T *row = data + b * stride;
      for (int64_t j = threadIdx.x; j < width; j += kThreads) {
        const double x = load(row, j);
        sum += x * x;
      }
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x == 0) sqnorms[b] = accumulate ? sqnorms[b] + partial[0] : partial[0];
    __syncthreads();
  }
}

__global__ void clip_factors_kernel(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width,
                                    double slack, float *factors, uint8_t *finite) {
  const int64_t b = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b >= batch) return;
  const bool counts = mask == nullptr || mask[b] != 0;
  const bool is_finite = sqnorms[b] <= 0x1.fffffffffffffp1023;
  factors[b] = counts ? clip_factor(sqnorms[b], max_norm, width, slack) : 0.0f;
  finite[b] = uint8_t(is_finite || !counts);
}

}  // namespace

int row_sqnorms_cuda(const Rows &rows, double *sqnorms, bool accumulate, void *stream) {
  if (rows.batch == 0) return 0;
  const unsigned grid = blocks_for(rows.batch, 1);
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (rows.element == Element::bfloat16) {
    row_sqnorms_kernel<<<grid, kThreads, 0, on>>>(static_cast<const uint16_t *>(rows.data), rows.batch, rows.width, rows.stride,
                                                  rows.mask, sqnorms, accumulate);
  } else {
    row_sqnorms_kernel<<<grid, kThreads, 0, on>>>(static_cast<const float *>(rows.data), rows.batch, rows.width, rows.stride,
                                                  rows.mask, sqnorms, accumulate);
  }
  return int(cudaGetLastError());
}

int clip_factors_cuda(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                      float *factors, uint8_t *finite, void *stream) {
  if (batch == 0) return 0;
  const unsigned grid = unsigned((batch + 127) / 128);
  clip_factors_kernel<<<grid, 128, 0, static_cast<cudaStream_t>(stream)>>>(sqnorms, mask, batch, max_norm, width, slack, factors,
                                                                           finite);
  return int(cudaGetLastError());
}

const char *cuda_error_text(int code) { return cudaGetErrorString(cudaError_t(code)); }

}  // namespace privkt

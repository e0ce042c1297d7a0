// Softmax and cross-entropy of a tile of logits, in place: one warp a row, and the CPU's bits.
#include <cuda_runtime.h>

#include "privkt/kernels.h"
#include "privkt/softmax.h"

namespace privkt {

namespace {

unsigned blocks_for(int64_t rows, int64_t each) {  // kernels loop with a grid stride
  const int64_t blocks = (rows + each - 1) / each;
  return unsigned(blocks < 1 ? 1 : blocks > 65535 ? 65535 : blocks);
}

constexpr int kWarp = 32, kWarps = 8;  // a lane takes the columns that the CPU's partial of its number takes, in that order

__device__ float warp_maximum(float x) {
  for (int half = kWarp / 2; half > 0; half /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, half);
    x = other > x ? other : x;
  }
  return x;
}

// The CPU adds partial[lane + half] to partial[lane], which lane 0 sees; every lane gets its result.
__device__ double warp_sum(double x) {
  for (int half = kWarp / 2; half > 0; half /= 2) x += __shfl_down_sync(0xffffffffu, x, half);
  return __shfl_sync(0xffffffffu, x, 0);
}

template <bool capped>
__device__ void gradient(const LogitsTile &tile, float *row, int64_t label, float maximum, double sum, int lane, bool map) {
  const float inverse = float(1.0 / sum);
  for (int64_t j = lane; j < tile.columns; j += kWarp) {
    const float y = map ? mapped<capped>(row[j], tile.scale, tile.cap) : row[j];
    row[j] = j == label ? gradient_at_label<capped>(y, maximum, sum, tile.scale, tile.cap)
                        : gradient_elsewhere<capped>(y, maximum, inverse, tile.scale, tile.cap);
  }
}

__device__ void clear(float *row, int64_t columns, int lane) {
  for (int64_t j = lane; j < columns; j += kWarp) row[j] = 0.0f;
}

template <bool capped>
__global__ void losses_kernel(LogitsTile tile, double *losses, double *stats, bool want_gradient) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t first = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  for (int64_t i = first; i < tile.rows; i += int64_t(gridDim.x) * kWarps) {
    float *row = tile.logits + i * tile.stride;
    const int64_t label = tile.labels[i];
    if (label < 0 || label >= tile.columns) {
      if (lane == 0) losses[i] = stats[2 * i] = stats[2 * i + 1] = 0.0;
      if (want_gradient) clear(row, tile.columns, lane);
      continue;
    }
    float maximum = -HUGE_VALF;
    for (int64_t j = lane; j < tile.columns; j += kWarp) {
      const float y = mapped<capped>(row[j], tile.scale, tile.cap);
      row[j] = y;
      maximum = y > maximum ? y : maximum;
    }
    maximum = warp_maximum(maximum);
    double sum = 0.0;
    for (int64_t j = lane; j < tile.columns; j += kWarp) sum += double(exp_not_positive(row[j] - maximum));
    sum = warp_sum(sum);
    __syncwarp();  // another lane wrote row[label]
    if (lane == 0) {
      losses[i] = log_from_one(sum) - (double(row[label]) - double(maximum));
      stats[2 * i] = maximum;
      stats[2 * i + 1] = sum;
    }
    __syncwarp();  // it is overwritten next
    if (want_gradient) gradient<capped>(tile, row, label, maximum, sum, lane, false);
  }
}

template <bool capped>
__global__ void gradient_kernel(LogitsTile tile, const double *stats, int64_t start) {
  const int lane = int(threadIdx.x) % kWarp;
  const int64_t first = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  for (int64_t i = first; i < tile.rows; i += int64_t(gridDim.x) * kWarps) {
    float *row = tile.logits + i * tile.stride;
    if (tile.labels[i] < 0) {
      clear(row, tile.columns, lane);
    } else {
      gradient<capped>(tile, row, tile.labels[i] - start, float(stats[2 * i]), stats[2 * i + 1], lane, true);
    }
  }
}

}  // namespace

int head_losses_cuda(const LogitsTile &tile, double *losses, double *stats, bool want_gradient, void *stream) {
  if (tile.rows == 0) return 0;
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  const unsigned grid = blocks_for(tile.rows, kWarps);
  if (tile.cap > 0.0f) {
    losses_kernel<true><<<grid, kWarp * kWarps, 0, on>>>(tile, losses, stats, want_gradient);
  } else {
    losses_kernel<false><<<grid, kWarp * kWarps, 0, on>>>(tile, losses, stats, want_gradient);
  }
  return int(cudaGetLastError());
}

int head_gradient_cuda(const LogitsTile &tile, const double *stats, int64_t start, void *stream) {
  if (tile.rows == 0) return 0;
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  const unsigned grid = blocks_for(tile.rows, kWarps);
  if (tile.cap > 0.0f) {
    gradient_kernel<true><<<grid, kWarp * kWarps, 0, on>>>(tile, stats, start);
  } else {
    gradient_kernel<false><<<grid, kWarp * kWarps, 0, on>>>(tile, stats, start);
  }
  return int(cudaGetLastError());
}

}  // namespace privkt

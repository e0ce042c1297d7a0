// Gaussian noise from ChaCha20, correctly rounded (gaussian.h): the CPU's bits.
#include "device.cuh"
#include "privkt/gaussian.h"

namespace privkt {

namespace {

constexpr int kThreads = 128;

__device__ double base_at(const void *base, Element element, int64_t i) {
  if (base == nullptr) return 0.0;
  return element == Element::float64 ? static_cast<const double *>(base)[i] : double(static_cast<const float *>(base)[i]);
}

// One thread a ChaCha20 block, that is eight normals.
__global__ void noise_kernel(float *out, const void *base, Element base_element, int64_t count, double sigma, NoiseKey key,
                             uint64_t step, uint64_t offset) {
  const uint64_t first_block = offset / kNormalsPerBlock;
  const int64_t skip = int64_t(offset % kNormalsPerBlock);
  const int64_t blocks = (skip + count + kNormalsPerBlock - 1) / kNormalsPerBlock;
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < blocks; b += int64_t(gridDim.x) * kThreads) {
    uint32_t words[16];
    chacha20_block_at(key.word, first_block + uint64_t(b), step, words);
    for (int p = 0; p < 4; ++p) {
      const Uniforms uniforms = uniforms_of(words, p);
      const FastPair pair = fast_normals(uniforms.radius, uniforms.angle);
      for (int which = 0; which < 2; ++which) {
        const int64_t i = b * kNormalsPerBlock + 2 * p + which - skip;
        if (i < 0 || i >= count) continue;
        const double start = base_at(base, base_element, i);
        float value;
        if (fast_noise(pair, which, start, sigma, &value)) {
          out[i] = value;
        } else if (fabs(start) <= 0x1.fffffffffffffp1023) {
          out[i] = exact_noise(key.word, step, offset + uint64_t(i), start, sigma);
        } else {
          out[i] = float(start);
        }
      }
    }
  }
}

__global__ void copy_kernel(float *out, const void *base, Element base_element, int64_t count) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    out[i] = float(base_at(base, base_element, i));
  }
}

}  // namespace

int noise_cuda(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key,
               uint64_t step, uint64_t offset, void *stream) {
  if (count == 0) return 0;
  cudaStream_t on = static_cast<cudaStream_t>(stream);
  if (sigma > 0.0) {
    noise_kernel<<<blocks_for(count, kThreads * kNormalsPerBlock), kThreads, 0, on>>>(out, base, base_element, count, sigma, key,
                                                                                     step, offset);
  } else {
    copy_kernel<<<blocks_for(count, kThreads), kThreads, 0, on>>>(out, base, base_element, count);
  }
  return int(cudaGetLastError());
}

}  // namespace privkt

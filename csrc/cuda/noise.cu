// Gaussian noise from ChaCha20, correctly rounded: the CPU's bits. See privkt/blocks/noisy.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/noisy.h"

namespace privkt::gpu {

int noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key,
               uint64_t step, uint64_t offset, void *stream) {
  return blocks::noise(GpuLaunch{stream}, out, base, base_element, count, sigma, key, step, offset);
}

}  // namespace privkt::gpu

// Exact discrete Gaussian noise: see privkt/blocks/discrete.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/discrete.h"

namespace privkt::gpu {

int discrete_gaussian(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                           bool accumulate, void *stream) {
  return blocks::discrete_gaussian(GpuLaunch{stream}, out, count, sigma, key, step, offset, accumulate);
}

}  // namespace privkt::gpu

// The noisy steps of torch's optimizers: see privkt/blocks/updates.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/updates.h"

namespace privkt::gpu {

int sgd_update(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer, void *stream) {
  return blocks::sgd_update(GpuLaunch{stream}, mean, how, weights, momentum_buffer);
}

int adam_update(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq,
                     void *stream) {
  return blocks::adam_update(GpuLaunch{stream}, mean, how, weights, exp_avg, exp_avg_sq);
}

}  // namespace privkt::gpu

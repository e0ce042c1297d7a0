// Permute-and-flip: see privkt/blocks/flips.h.
#include "privkt/blocks/flips.h"

#include "launch.cuh"
#include "tokens.cuh"

namespace privkt::gpu {

int flip_draws(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids, int64_t count,
               int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace, void *stream) {
  return blocks::flip_draws(GpuLaunch{stream}, words, levels, weights, bits, ids, count, out, key, step, offset, workspace);
}

}  // namespace privkt::gpu

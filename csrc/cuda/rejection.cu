// Draws from a list of neighbours: see privkt/blocks/rejection.h.
#include "privkt/blocks/rejection.h"

#include "launch.cuh"
#include "tokens.cuh"

namespace privkt::gpu {

int rejection_draws(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                    const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key, uint64_t step,
                    uint64_t offset, void *stream) {
  return blocks::rejection_draws(GpuLaunch{stream}, words, list, levels, weights, fixed, ids, count, out, key, step, offset);
}

}  // namespace privkt::gpu

// Nearest words and extremes: see privkt/blocks/nearest.h.
#include "privkt/blocks/nearest.h"

#include "launch.cuh"
#include "tokens.cuh"

namespace privkt::gpu {

int nearest_words(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                  int64_t *workspace, void *stream) {
  return blocks::nearest_words(GpuLaunch{stream}, queries, words, k, ids, distances, workspace);
}

int row_extremes(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                 const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace, void *stream) {
  return blocks::row_extremes(GpuLaunch{stream}, queries, words, levels, values, word_values, most, least, workspace);
}

}  // namespace privkt::gpu

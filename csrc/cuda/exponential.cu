// The exponential mechanism by streaming: see privkt/blocks/exponential.h.
#include "privkt/blocks/exponential.h"

#include "launch.cuh"
#include "tokens.cuh"

namespace privkt::gpu {

int weight_totals(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                  int64_t *totals, int64_t *workspace, void *stream) {
  return blocks::weight_totals(GpuLaunch{stream}, queries, words, levels, weights, totals, workspace);
}

int exponential_draws(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                      const TokenDraws &draws, int64_t drawn, int64_t *workspace, void *stream) {
  return blocks::exponential_draws(GpuLaunch{stream}, queries, words, levels, weights, draws, drawn, workspace);
}

int selected_words(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                   const uint64_t *r, int64_t *words_drawn, int64_t *workspace, void *stream) {
  return blocks::selected_words(GpuLaunch{stream}, queries, words, levels, weights, r, words_drawn, workspace);
}

}  // namespace privkt::gpu

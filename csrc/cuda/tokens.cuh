// The token kernels made from privkt/blocks.
#pragma once

#include "privkt/token_blocks.h"

namespace privkt::gpu {

int weight_totals(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                  int64_t *totals, int64_t *workspace, void *stream);
int exponential_draws(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                      const TokenDraws &draws, int64_t drawn, int64_t *workspace, void *stream);
int nearest_words(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                  int64_t *workspace, void *stream);
int row_extremes(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                 const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace, void *stream);
int rejection_draws(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                    const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key, uint64_t step,
                    uint64_t offset, void *stream);
int flip_draws(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids, int64_t count,
               int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace, void *stream);
int selected_words(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                   const uint64_t *r, int64_t *words_drawn, int64_t *workspace, void *stream);

}  // namespace privkt::gpu

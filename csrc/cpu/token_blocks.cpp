// The token kernels of privkt/blocks, played by one thread of the CPU (play.h), and the memory that their launches need.
#include "privkt/token_blocks.h"

#include "play.h"
#include "privkt/blocks/exponential.h"
#include "privkt/blocks/flips.h"
#include "privkt/blocks/nearest.h"
#include "privkt/blocks/rejection.h"

namespace privkt {

int64_t token_space = int64_t(1) << 22;

namespace {

int weight_totals(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                  int64_t *totals, int64_t *workspace, void *) {
  return blocks::weight_totals(Play{}, queries, words, levels, weights, totals, workspace);
}

int exponential_draws(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                      const TokenDraws &draws, int64_t drawn, int64_t *workspace, void *) {
  return blocks::exponential_draws(Play{}, queries, words, levels, weights, draws, drawn, workspace);
}

int nearest_words(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                  int64_t *workspace, void *) {
  return blocks::nearest_words(Play{}, queries, words, k, ids, distances, workspace);
}

int row_extremes(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                 const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace, void *) {
  return blocks::row_extremes(Play{}, queries, words, levels, values, word_values, most, least, workspace);
}

int rejection_draws(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                    const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key, uint64_t step,
                    uint64_t offset, void *) {
  return blocks::rejection_draws(Play{}, words, list, levels, weights, fixed, ids, count, out, key, step, offset);
}

int flip_draws(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids, int64_t count,
               int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace, void *) {
  return blocks::flip_draws(Play{}, words, levels, weights, bits, ids, count, out, key, step, offset, workspace);
}

int selected_words(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                   const uint64_t *r, int64_t *words_drawn, int64_t *workspace, void *) {
  return blocks::selected_words(Play{}, queries, words, levels, weights, r, words_drawn, workspace);
}

}  // namespace

int64_t token_sums_workspace(int64_t queries, int64_t words) {
  return blocks::round_of(queries, token_tiles(words)) * token_tiles(words);
}

int64_t nearest_block_workspace(int64_t queries, int64_t words, int64_t k) {
  const blocks::NearSizes sizes = blocks::near_sizes(queries, words, k);
  return sizes.rows * sizes.stripes * sizes.room;
}

int64_t extremes_block_workspace(int64_t queries, int64_t words) {  // two of int32 for a stripe
  return queries * blocks::stripes_of(queries, words, blocks::kMostStripes);
}

int64_t flip_block_workspace(int64_t queries, int64_t words) {
  return blocks::round_of(queries, blocks::flip_space(words)) * blocks::flip_space(words);
}

const TokenBlockKernels &played_token_kernels() {
  static const TokenBlockKernels kernels = {weight_totals,   exponential_draws, nearest_words, row_extremes,
                                            rejection_draws, flip_draws,        selected_words};
  return kernels;
}

}  // namespace privkt

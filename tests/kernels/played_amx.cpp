// Every token kernel over played tiles (or over vectors) against the scalar one, in odd sizes; says what differs.
#include <stdint.h>
#include <stdio.h>

#include <random>
#include <string>
#include <vector>

#include "../../csrc/cpu/amx_check.h"
#include "played_amx.h"
#include "privkt/exponential.h"

using namespace privkt;

#define PRIVKT_DECLARE(isa)                                                                                                  \
  namespace privkt::isa {                                                                                                    \
  void weight_totals(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, int64_t *, int64_t *);      \
  void exponential_draws(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, const TokenDraws &,     \
                         int64_t *);                                                                                         \
  void nearest_words(const ByteQueries &, const ByteRows &, int64_t, int32_t *, int32_t *, int64_t *);                       \
  void row_extremes(const ByteQueries &, const ByteRows &, const Levels &, const int32_t *, const int32_t *, int32_t *,      \
                    int32_t *, int64_t *);                                                                                   \
  void flip_draws(const ByteRows &, const Levels &, const int32_t *, int, const int64_t *, int64_t, int64_t *,               \
                  const NoiseKey &, uint64_t, uint64_t, int64_t *);                                                          \
  void table_totals(const ByteRows &, const TablePiece &, const Levels &, const WeightTable &, int64_t *, int64_t *);        \
  void table_nearest(const ByteRows &, const TablePiece &, int64_t, const TableLists &, int64_t *);                          \
  }                                                                                                                          \
  static const Kernels isa##_kernels = {isa::weight_totals, isa::exponential_draws, isa::nearest_words, isa::row_extremes,   \
                                        isa::flip_draws,    isa::table_totals,      isa::table_nearest};

struct Kernels {
  decltype(TokenKernels::weight_totals) weight_totals;
  decltype(TokenKernels::exponential_draws) exponential_draws;
  decltype(TokenKernels::nearest_words) nearest_words;
  decltype(TokenKernels::row_extremes) row_extremes;
  decltype(TokenKernels::flip_draws) flip_draws;
  decltype(TokenKernels::table_totals) table_totals;
  decltype(TokenKernels::table_nearest) table_nearest;
};

PRIVKT_DECLARE(scalar)
PRIVKT_DECLARE(tiles)

// Everything that the kernels say of one table, as integers.
static std::vector<std::vector<int64_t>> results(const Kernels &kernels, int64_t count, int64_t width, int64_t batch, int largest) {
  std::mt19937 source(uint32_t(count * 1000 + width));
  const auto vectors = [&](int64_t n) {
    std::vector<int8_t> all(size_t(n * (width + 3)));
    for (auto &x : all) x = int8_t(int(source() % uint32_t(2 * largest)) - largest);  // -128 among them
    return all;
  };
  const std::vector<int8_t> words = vectors(count), queries = vectors(batch);
  const auto norms = [&](const std::vector<int8_t> &all, int64_t n) {
    std::vector<int32_t> sums(size_t(n), 0);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < width; ++j) sums[size_t(i)] += all[size_t(i * (width + 3) + j)] * all[size_t(i * (width + 3) + j)];
    }
    return sums;
  };
  const std::vector<int32_t> word_bias = norms(words, count), query_bias = norms(queries, batch);
  const ByteRows table = {words.data(), word_bias.data(), count, width, width + 3};
  const ByteQueries asked = {{queries.data(), query_bias.data(), batch, width, width + 3}, nullptr, batch};
  const Levels levels = {2, true, 900};
  std::vector<int32_t> weights(901);
  for (int t = 0; t < 901; ++t) weights[size_t(t)] = (1 << 20) - 1000 * t;
  const WeightTable narrow = {weights.data(), false};
  const int64_t k = count < 9 ? count : 9;
  std::vector<int64_t> workspace(size_t(token_workspace(width, count) + token_rows(width) * 600));
  std::vector<std::vector<int64_t>> all;
  std::vector<int64_t> totals(static_cast<size_t>(batch)), drawn(totals), starts, every(size_t(count), 0), flipped(totals);
  for (int64_t i = 0; i <= batch; ++i) starts.push_back(i);
  kernels.weight_totals(asked, table, levels, narrow, totals.data(), workspace.data());
  const NoiseKey key = {{1, 2, 3, 4, 5, 6, 7, 8}};
  kernels.exponential_draws(asked, table, levels, narrow, {starts.data(), starts.data(), drawn.data(), key, 5, 7}, workspace.data());
  std::vector<int32_t> ids(size_t(batch * k)), distances(ids), most(static_cast<size_t>(batch)), least(most);
  kernels.nearest_words(asked, table, k, ids.data(), distances.data(), workspace.data());
  kernels.row_extremes(asked, table, levels, weights.data(), word_bias.data(), most.data(), least.data(), workspace.data());
  std::vector<int64_t> places;
  for (int64_t i = 0; i < batch; ++i) places.push_back(i * 7 % count);
  kernels.flip_draws(table, levels, weights.data(), 20, places.data(), batch, flipped.data(), key, 5, 7, workspace.data());
  const int64_t middle = count / 3;
  std::vector<uint64_t> keys(size_t(count * k), UINT64_MAX);
  std::vector<int32_t> bounds(size_t(count), INT32_MAX), farthest(size_t(count), 0);
  for (const TablePiece &piece : {TablePiece{0, middle, 0, middle}, {middle, count, middle, count}, {0, middle, middle, count}}) {
    kernels.table_totals(table, piece, levels, narrow, every.data(), workspace.data());
    kernels.table_nearest(table, piece, k, {keys.data(), bounds.data(), farthest.data()}, workspace.data());
  }
  int64_t sum = 0;  // the order within a heap is not said
  for (uint64_t x : keys) sum += int64_t(x * (x | 1));
  all = {totals, drawn, flipped, every, {sum}};
  for (const auto *part : {&ids, &distances, &most, &least, &bounds, &farthest}) all.emplace_back(part->begin(), part->end());
  return all;
}

int main() {
  int wrong = 0;
  uint8_t someone[64] = {1}, after[64];  // another's tile, of other shapes
  someone[16] = 12;
  someone[48] = 3;
  _tile_loadconfig(someone);
  const int64_t sizes[][3] = {{1, 1, 1},    {31, 3, 33},  {33, 63, 1},   {257, 64, 32}, {100, 65, 31}, {513, 130, 37},
                              {700, 7, 483}, {64, 1030, 5}, {65, 4100, 97}, {40, 200, 200}};
  for (const auto &size : sizes) {
    for (int largest : {3, 128}) {
      const auto expected = results(scalar_kernels, size[0], size[1], size[2], largest);
      const auto got = results(tiles_kernels, size[0], size[1], size[2], largest);
      for (size_t part = 0; part < expected.size(); ++part) {
        if (got[part] == expected[part]) continue;
        printf("words %d, width %d, queries %d: part %d differs\n", int(size[0]), int(size[1]), int(size[2]), int(part));
        ++wrong;
      }
    }
  }
  _tile_storeconfig(after);
  if (memcmp(someone, after, sizeof after) != 0) {
    printf("another's shapes are gone\n");
    ++wrong;
  }
  TokenKernels some = {}, truth = {};
  some.nearest_words = tiles_kernels.nearest_words;
  truth.nearest_words = scalar_kernels.nearest_words;
  if (!differs_from(some, truth).empty()) printf("the check at the first use finds it\n");
  return wrong == 0 ? 0 : 1;
}

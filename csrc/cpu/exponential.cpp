// The exponential mechanism by streaming: sums of tiles, one uniform integer below their sum, and the one tile that it falls in.
//
// Sums of integers do not depend on their order, so neither blocks of queries nor panels nor threads show in the result.
#include "level_sums.h"

namespace privkt::PRIVKT_ISA {

namespace {

struct Workspace {
  int64_t *partial, *tiles;
  int32_t *packed;
  Workspace(int64_t *memory, int64_t width, int64_t words)
      : partial(memory),
        tiles(partial + token_rows(width) * kLongs),
        packed(reinterpret_cast<int32_t *>(tiles + token_rows(width) * token_tiles(words))) {}
};

// tiles[i * number + n]: the sum of the weights of tile n for the block's query i.
template <bool wide>
void sum_tiles_of(const ByteQueries &queries, int64_t from, int64_t count, const ByteRows &words, const Levels &levels,
                  const WeightTable &weights, const Workspace &work) {
  const LevelRule rule(levels);
  const int64_t number = token_tiles(words.count);
  for (int64_t i = 0; i < count * kLongs; ++i) work.partial[i] = 0;
  distances_by_tiles(queries, from, count, words, work.packed,
                     [&](int64_t first, int64_t rows, int64_t word, int64_t here, const int32_t *tile) {
    const bool last = word + here == words.count || (word + kWordCols) % kTokenTile == 0;
    for (int64_t i = 0; i < rows; ++i) {
      int64_t *sums = work.partial + (first + i) * kLongs;
      const int32_t *x = tile + i * kWordCols;
      int64_t v = 0;
      for (; v + kInts <= here; v += kInts) {
        Longs first_half, second_half;
        weigh<wide>(levels_of(load_ints(x + v), rule), weights.data, first_half, second_half);
        store_longs(sums, sum_of_longs(load_longs(sums), sum_of_longs(first_half, second_half)));
      }
      for (; v < here; ++v) sums[0] += int64_t(weight_at(weights, level_of(x[v], levels)));
      if (!last) continue;
      int64_t sum = 0;
      for (int s = 0; s < kLongs; ++s) {
        sum += sums[s];
        sums[s] = 0;
      }
      work.tiles[(first + i) * number + word / kTokenTile] = sum;
    }
  });
}

void sum_tiles(const ByteQueries &queries, int64_t from, int64_t count, const ByteRows &words, const Levels &levels,
               const WeightTable &weights, const Workspace &work) {
  if (weights.wide) {
    sum_tiles_of<true>(queries, from, count, words, levels, weights, work);
  } else {
    sum_tiles_of<false>(queries, from, count, words, levels, weights, work);
  }
}

// The word whose stretch of [0, total) holds r, words by ascending number.
int64_t selected(const ByteQueries &queries, int64_t query, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                 const int64_t *tiles, uint64_t r) {
  int64_t tile = 0;
  while (r >= uint64_t(tiles[tile])) r -= uint64_t(tiles[tile++]);
  int64_t word = tile * kTokenTile;
  while (true) {
    const uint64_t weight = weight_at(weights, level_of(distance(queries, query, words, word), levels));
    if (r < weight) return word;
    r -= weight;
    ++word;
  }
}

}  // namespace

void weight_totals(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                   int64_t *totals, int64_t *workspace) {
  const Workspace work(workspace, words.width, words.count);
  const int64_t block = token_rows(words.width), number = token_tiles(words.count);
  for (int64_t from = 0; from < queries.count; from += block) {
    const int64_t count = queries.count - from < block ? queries.count - from : block;
    sum_tiles(queries, from, count, words, levels, weights, work);
    for (int64_t i = 0; i < count; ++i) {
      int64_t total = 0;
      for (int64_t n = 0; n < number; ++n) total += work.tiles[i * number + n];
      totals[from + i] = total;
    }
  }
}

void selected_words(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                    const uint64_t *r, int64_t *words_drawn, int64_t *workspace) {
  const Workspace work(workspace, words.width, words.count);
  const int64_t block = token_rows(words.width), number = token_tiles(words.count);
  for (int64_t from = 0; from < queries.count; from += block) {
    const int64_t count = queries.count - from < block ? queries.count - from : block;
    sum_tiles(queries, from, count, words, levels, weights, work);
    for (int64_t i = 0; i < count; ++i) {
      words_drawn[from + i] = selected(queries, from + i, words, levels, weights, work.tiles + i * number, r[from + i]);
    }
  }
}

void exponential_draws(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                       const TokenDraws &draws, int64_t *workspace) {
  const Workspace work(workspace, words.width, words.count);
  const int64_t block = token_rows(words.width), number = token_tiles(words.count);
  for (int64_t from = 0; from < queries.count; from += block) {
    const int64_t count = queries.count - from < block ? queries.count - from : block;
    sum_tiles(queries, from, count, words, levels, weights, work);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t *tiles = work.tiles + i * number;
      uint64_t total = 0;
      for (int64_t n = 0; n < number; ++n) total += uint64_t(tiles[n]);
      for (int64_t j = draws.starts[from + i]; j < draws.starts[from + i + 1]; ++j) {
        TokenStream stream = token_stream(draws.key, draws.step, draws.offset + uint64_t(draws.places[j]));
        const uint64_t r = uniform_below(total, stream);
        draws.out[draws.places[j]] = selected(queries, from + i, words, levels, weights, tiles, r);
      }
    }
  }
}

}  // namespace privkt::PRIVKT_ISA

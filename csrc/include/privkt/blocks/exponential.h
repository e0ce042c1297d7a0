// The exponential mechanism by streaming: sums of tiles of words, one integer below their sum, and the tile that it falls in.
//
// Sums of 64-bit integers do not depend on their order, so totals and words drawn are those of csrc/cpu/exponential.cpp. What
// is kept of a query is one sum for each kTokenTile words.
#pragma once

#include "privkt/blocks/bytes.h"

namespace privkt::blocks {

// tiles[i * number + n] = sum of the weights of tile n for query i; one block for 128 queries and a tile. Neighbouring blocks
// share their words, so that these come from memory once.
struct TileSums {
  static constexpr int kThreads = kByteThreads;
  union Shared {
    BytePanels panels;
    uint64_t sums[kPanel][kRowShares + 1];  // the last column only keeps banks apart
  };
  struct Registers {
    ByteRegisters tile;
    uint64_t sums[kRowSlots];
  };
  ByteSides x;
  Levels levels;
  WeightTable weights;
  int64_t number;  // of tiles
  int64_t *tiles;

  int64_t blocks() const { return parts_of(x.queries.count, kPanel) * number; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const TileSums &p, Team &team, Shared &shared, int64_t block) {
    const int64_t across = (p.x.queries.count + kPanel - 1) / kPanel, query = block % across * kPanel, tile = block / across;
    const int64_t from = tile * kTokenTile, to = smaller(from + kTokenTile, p.x.words.count);
    team.apart([&](int, Registers &mine) {
      PRIVKT_UNROLLED
      for (int slot = 0; slot < kRowSlots; ++slot) mine.sums[slot] = 0;
    });
    const auto ended = [&](int thread, Registers &mine, int64_t word) {
      each_distance(mine.tile, p.x.words, word, to, thread, [&](int slot, int, int, int32_t x) {
        mine.sums[slot] += weight_at(p.weights, level_of(x, p.levels));
      });
    };
    stream_words(team, shared.panels, p.x, query, from, to, ended, [] {});
    team.each([&](int thread, Registers &mine) {
      PRIVKT_UNROLLED
      for (int slot = 0; slot < kRowSlots; ++slot) shared.sums[row_of_slot(thread, slot)][share_of(thread)] = mine.sums[slot];
    });
    team.apart([&](int thread, Registers &) {
      if (thread >= kPanel || query + thread >= p.x.queries.count) return;
      uint64_t sum = 0;
      for (int share = 0; share < kRowShares; ++share) sum += shared.sums[thread][share];
      p.tiles[(query + thread) * p.number + tile] = int64_t(sum);
    });
  }
};

// sums[..][i] becomes the sum of the first i + 1; which of the two rows holds them is returned. All have waited at its end.
template <int threads, typename Team>
PRIVKT_BLOCK_FN int sum_up(Team &team, uint64_t (*sums)[threads]) {
  int now = 0;
  for (int before = 1; before < threads; before *= 2, now ^= 1) {
    team.each([&](int thread, auto &) {
      sums[now ^ 1][thread] = sums[now][thread] + (thread >= before ? sums[now][thread - before] : 0);
    });
  }
  return now;
}

// totals[i] = sum of tiles[i], [queries, number]; one block a query.
struct TokenTotals {
  static constexpr int kThreads = 64;
  struct Shared {
    uint64_t sums[2][kThreads];
  };
  using Registers = Nothing;
  const int64_t *tiles;
  int64_t queries, number;
  int64_t *totals;

  int64_t blocks() const { return queries; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const TokenTotals &p, Team &team, Shared &shared, int64_t query) {
    team.each([&](int thread, Nothing &) {
      uint64_t sum = 0;
      for (int64_t n = thread; n < p.number; n += kThreads) sum += uint64_t(p.tiles[query * p.number + n]);
      shared.sums[0][thread] = sum;
    });
    const int now = sum_up<kThreads>(team, shared.sums);
    team.apart([&](int thread, Nothing &) {
      if (thread == 0) p.totals[query] = int64_t(shared.sums[now][kThreads - 1]);
    });
  }
};

// One block a draw: the word whose stretch of [0, total) holds r, words by ascending number. r is drawn, or given.
struct TokenDraw {
  static constexpr int kThreads = int(kTokenTile);
  struct Shared {
    uint64_t sums[2][kThreads], r, rest;
    int64_t tile;
  };
  using Registers = Nothing;
  ByteSides x;  // of the queries from `first` on; tiles are theirs
  int64_t first;
  Levels levels;
  WeightTable weights;
  TokenDraws draws;
  const uint64_t *given;  // null: drawn. Else draw i is query i's and goes to place i
  int64_t drawn, number;  // of draws, of tiles
  const int64_t *tiles;

  int64_t blocks() const { return given == nullptr ? drawn : x.queries.count; }

  // The query, counted from `first`, whose draws `draw` is among; negative where that is no query of this round.
  PRIVKT_BLOCK_FN int64_t query_of(const TokenDraw &p, int64_t draw) {
    if (p.given != nullptr) return draw;
    const int64_t *starts = p.draws.starts + p.first;
    if (draw < starts[0] || draw >= starts[p.x.queries.count]) return -1;
    int64_t low = 0, high = p.x.queries.count;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (starts[middle] <= draw ? low : high) = middle;
    }
    return low;
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const TokenDraw &p, Team &team, Shared &shared, int64_t draw) {
    const int64_t query = query_of(p, draw);
    if (query < 0) return;
    const int64_t place = p.given == nullptr ? p.draws.places[draw] : p.first + draw;
    const int64_t share = (p.number + kThreads - 1) / kThreads, *tiles = p.tiles + query * p.number;
    team.each([&](int thread, Nothing &) {
      uint64_t sum = 0;
      for (int64_t n = thread * share; n < p.number && n < (thread + 1) * share; ++n) sum += uint64_t(tiles[n]);
      shared.sums[0][thread] = sum;
    });
    int now = sum_up<kThreads>(team, shared.sums);
    team.each([&](int thread, Nothing &) {
      if (thread != 0) return;
      TokenStream stream = token_stream(p.draws.key, p.draws.step, p.draws.offset + uint64_t(place));
      shared.r = p.given == nullptr ? uniform_below(shared.sums[now][kThreads - 1], stream) : p.given[place];
    });
    team.each([&](int thread, Nothing &) {
      const uint64_t before = thread > 0 ? shared.sums[now][thread - 1] : 0;
      if (shared.r < before || shared.r >= shared.sums[now][thread]) return;  // one thread's stretch holds it
      uint64_t r = shared.r - before;
      int64_t tile = thread * share;
      while (r >= uint64_t(tiles[tile])) r -= uint64_t(tiles[tile++]);
      shared.tile = tile;
      shared.rest = r;
    });
    const uint64_t rest = shared.rest;
    const int64_t from = shared.tile * kTokenTile, own = vector_of(p.x.queries, query);
    team.each([&](int thread, Nothing &) {
      uint64_t weight = 0;
      if (from + thread < p.x.words.count) {
        const ByteRows &rows = p.x.queries.rows, &words = p.x.words;
        const int32_t product = part_of_product(rows.data + own * rows.stride, words.data + (from + thread) * words.stride,
                                                words.width, p.x.unit, 0, 1);
        weight = weight_at(p.weights, level_of(distance_of(rows.bias[own], words.bias[from + thread], product), p.levels));
      }
      shared.sums[0][thread] = weight;
    });
    now = sum_up<kThreads>(team, shared.sums);
    team.apart([&](int thread, Nothing &) {
      const uint64_t before = thread > 0 ? shared.sums[now][thread - 1] : 0;
      if (rest >= before && rest < shared.sums[now][thread]) p.draws.out[place] = from + thread;
    });
  }
};

// use(round's sides, its first query) after its tiles' sums are in the workspace.
template <typename Launch, typename Use>
static int by_rounds(const Launch &launch, const ByteQueries &queries, const ByteRows &words, const Levels &levels,
                     const WeightTable &weights, int64_t *workspace, Use use) {
  const int64_t number = token_tiles(words.count), rows = round_of(queries.count, number);
  for (int64_t first = 0; first < queries.count; first += rows) {
    const ByteSides x = sides_of(part_of(queries, first, smaller(rows, queries.count - first)), words);
    int failed = launch(TileSums{x, levels, weights, number, workspace});
    if (failed == 0) failed = use(x, first);
    if (failed != 0) return failed;
  }
  return 0;
}

template <typename Launch>
static int weight_totals(const Launch &launch, const ByteQueries &queries, const ByteRows &words, const Levels &levels,
                         const WeightTable &weights, int64_t *totals, int64_t *workspace) {
  return by_rounds(launch, queries, words, levels, weights, workspace, [&](const ByteSides &x, int64_t first) {
    return launch(TokenTotals{workspace, x.queries.count, token_tiles(words.count), totals + first});
  });
}

template <typename Launch>
static int exponential_draws(const Launch &launch, const ByteQueries &queries, const ByteRows &words, const Levels &levels,
                             const WeightTable &weights, const TokenDraws &draws, int64_t drawn, int64_t *workspace) {
  return by_rounds(launch, queries, words, levels, weights, workspace, [&](const ByteSides &x, int64_t first) {
    return launch(TokenDraw{x, first, levels, weights, draws, nullptr, drawn, token_tiles(words.count), workspace});
  });
}

template <typename Launch>
static int selected_words(const Launch &launch, const ByteQueries &queries, const ByteRows &words, const Levels &levels,
                          const WeightTable &weights, const uint64_t *r, int64_t *words_drawn, int64_t *workspace) {
  const TokenDraws draws = {nullptr, nullptr, words_drawn, {}, 0, 0};
  return by_rounds(launch, queries, words, levels, weights, workspace, [&](const ByteSides &x, int64_t first) {
    return launch(TokenDraw{x, first, levels, weights, draws, r, 0, token_tiles(words.count), workspace});
  });
}

}  // namespace privkt::blocks

// What streams over the table and keeps little of a row: its nearest words, and the extremes of a function of its levels.
//
// A block takes 128 queries and a stripe of the words. Keys (x, id) are all different, so that the k least are a set that no
// order of threads changes: they are put down in any order, and sorted.
#pragma once

#include "privkt/blocks/bytes.h"

namespace privkt::blocks {

constexpr uint64_t kNoKey = ~uint64_t(0);

// Threads of a block count together; the order in which they do shows in nothing that is kept.
PRIVKT_BLOCK_FN int add_together(int *count, int by) {
#if defined(__CUDACC__)
  return atomicAdd(count, by);
#elif defined(__GNUC__)
  return __atomic_fetch_add(count, by, __ATOMIC_RELAXED);
#else  // played by one thread
  const int before = *count;
  *count += by;
  return before;
#endif
}

// Sorts `lists` lists of n keys, a power of two, ascending (K. Batcher, AFIPS 1968). All have waited at its end.
template <int threads, typename Team>
PRIVKT_BLOCK_FN void sort_keys(Team &team, uint64_t *keys, int64_t n, int64_t lists, int64_t pitch) {
  for (int64_t run = 2; run <= n; run *= 2) {
    for (int64_t apart = run / 2; apart > 0; apart /= 2) {
      team.each([&](int thread, auto &) {
        for (int64_t pair = thread; pair < lists * (n / 2); pair += threads) {
          const int64_t at = pair & (n / 2 - 1), i = (at & ~(apart - 1)) << 1 | (at & (apart - 1));
          uint64_t *low = keys + (pair - at) / (n / 2) * pitch + i, *high = low + apart;
          const uint64_t a = *low, b = *high;
          if ((a > b) == ((i & run) == 0)) {
            *low = b;
            *high = a;
          }
        }
      });
    }
  }
}

// keys[(i * stripes + s) * room ..]: the k nearest words of query i in stripe s are among them, the rest kNoKey. `room`, a power
// of two, is at least k and a panel.
struct NearStripe {
  static constexpr int kThreads = kByteThreads;
  struct Shared {
    BytePanels panels;
    uint64_t farthest[kPanel];  // only keys below it are put down
    int kept[kPanel], crowded;
  };
  struct Registers {
    ByteRegisters tile;
  };
  ByteSides x;
  int64_t k, stripes, each, room;  // `each` words a stripe
  uint64_t *keys;

  int64_t blocks() const { return parts_of(x.queries.count, kPanel) * stripes; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const NearStripe &p, Team &team, Shared &shared, int64_t block) {
    const int64_t stripe = block % p.stripes, query = block / p.stripes * kPanel;
    const int64_t from = smaller(stripe * p.each, p.x.words.count), to = smaller(from + p.each, p.x.words.count);
    const int64_t rows = smaller(kPanel, p.x.queries.count - query), pitch = p.stripes * p.room;
    uint64_t *keys = p.keys + (query * p.stripes + stripe) * p.room;
    team.each([&](int thread, Registers &) {
      for (int64_t i = thread; i < rows * p.room; i += kThreads) keys[i / p.room * pitch + i % p.room] = kNoKey;
      if (thread < kPanel) {
        shared.farthest[thread] = kNoKey;
        shared.kept[thread] = 0;
      }
      if (thread == 0) shared.crowded = 0;
    });
    const auto ended = [&](int thread, Registers &mine, int64_t word) {
      each_distance(mine.tile, p.x.words, word, to, thread, [&](int, int row, int column, int32_t x) {
        const uint64_t key = uint64_t(uint32_t(x)) << 32 | uint64_t(word + column);
        if (row >= rows || key >= shared.farthest[row]) return;
        const int place = add_together(&shared.kept[row], 1);
        keys[row * pitch + place] = key;
        if (place + 1 > p.room - kPanel) add_together(&shared.crowded, 1);
      });
    };
    // Before a list could overflow, what is beyond its k nearest is left out.
    const auto between = [&] {
      const bool crowded = shared.crowded != 0;
      team.each([](int, Registers &) {});  // all have looked before anyone counts on
      if (!crowded) return;
      sort_keys<kThreads>(team, keys, p.room, rows, pitch);
      team.each([&](int thread, Registers &) {
        for (int64_t i = thread; i < rows * (p.room - p.k); i += kThreads) {
          keys[i / (p.room - p.k) * pitch + p.k + i % (p.room - p.k)] = kNoKey;
        }
        if (thread < rows) {
          shared.farthest[thread] = keys[thread * pitch + p.k - 1];
          shared.kept[thread] = int(smaller(shared.kept[thread], p.k));
        }
        if (thread == 0) shared.crowded = 0;
      });
    };
    stream_words(team, shared.panels, p.x, query, from, to, ended, between);
  }
};

// One block a query: the first k of its keys, `count` of them, a power of two.
struct NearJoin {
  static constexpr int kThreads = 256;
  using Shared = Nothing;
  using Registers = Nothing;
  uint64_t *keys;
  int64_t queries, count, k;
  int32_t *ids, *distances;

  int64_t blocks() const { return queries; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const NearJoin &p, Team &team, Nothing &, int64_t query) {
    uint64_t *keys = p.keys + query * p.count;
    sort_keys<kThreads>(team, keys, p.count, 1, p.count);
    team.apart([&](int thread, Nothing &) {
      for (int64_t j = thread; j < p.k; j += kThreads) {
        p.ids[query * p.k + j] = int32_t(uint32_t(keys[j]));
        p.distances[query * p.k + j] = int32_t(keys[j] >> 32);
      }
    });
  }
};

struct NearSizes {
  int64_t room, stripes, rows;
};

static inline NearSizes near_sizes(int64_t queries, int64_t words, int64_t k) {
  NearSizes sizes = {2 * kPanel, 1, 0};
  while (sizes.room < 2 * k || sizes.room < k + kPanel) sizes.room *= 2;
  sizes.stripes = stripes_of(queries, words, smaller(kMostStripes, token_space / (kPanel * sizes.room)));
  sizes.rows = round_of(queries, sizes.stripes * sizes.room);
  return sizes;
}

template <typename Launch>
static int nearest_words(const Launch &launch, const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids,
                         int32_t *distances, int64_t *workspace) {
  const NearSizes sizes = near_sizes(queries.count, words.count, k);
  auto *keys = reinterpret_cast<uint64_t *>(workspace);
  for (int64_t first = 0; first < queries.count; first += sizes.rows) {
    const ByteSides x = sides_of(part_of(queries, first, smaller(sizes.rows, queries.count - first)), words);
    int failed = launch(NearStripe{x, k, sizes.stripes, stripe_words(words.count, sizes.stripes), sizes.room, keys});
    if (failed == 0) {
      failed = launch(NearJoin{keys, x.queries.count, sizes.stripes * sizes.room, k, ids + first * k, distances + first * k});
    }
    if (failed != 0) return failed;
  }
  return 0;
}

// parts[2 (i * stripes + s)] and the next: the most and the least of query i in stripe s. A stripe without words leaves the
// ends of int32.
struct ExtremesStripe {
  static constexpr int kThreads = kByteThreads;
  union Shared {
    BytePanels panels;
    int32_t extremes[2][kPanel][kRowShares + 1];
  };
  struct Registers {
    ByteRegisters tile;
    int32_t most[kRowSlots], least[kRowSlots];
  };
  ByteSides x;
  Levels levels;
  const int32_t *values, *word_values;
  int64_t stripes, each;
  int32_t *parts;

  int64_t blocks() const { return parts_of(x.queries.count, kPanel) * stripes; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const ExtremesStripe &p, Team &team, Shared &shared, int64_t block) {
    const int64_t stripe = block % p.stripes, query = block / p.stripes * kPanel;
    const int64_t from = smaller(stripe * p.each, p.x.words.count), to = smaller(from + p.each, p.x.words.count);
    team.apart([&](int, Registers &mine) {
      PRIVKT_UNROLLED
      for (int slot = 0; slot < kRowSlots; ++slot) {
        mine.most[slot] = INT32_MIN;
        mine.least[slot] = INT32_MAX;
      }
    });
    const auto ended = [&](int thread, Registers &mine, int64_t word) {
      each_distance(mine.tile, p.x.words, word, to, thread, [&](int slot, int, int column, int32_t x) {
        const int32_t value = p.values[level_of(x, p.levels)] + p.word_values[word + column];
        if (value > mine.most[slot]) mine.most[slot] = value;
        if (value < mine.least[slot]) mine.least[slot] = value;
      });
    };
    stream_words(team, shared.panels, p.x, query, from, to, ended, [] {});
    team.each([&](int thread, Registers &mine) {
      PRIVKT_UNROLLED
      for (int slot = 0; slot < kRowSlots; ++slot) {
        shared.extremes[0][row_of_slot(thread, slot)][share_of(thread)] = mine.most[slot];
        shared.extremes[1][row_of_slot(thread, slot)][share_of(thread)] = mine.least[slot];
      }
    });
    team.apart([&](int thread, Registers &) {
      if (thread >= kPanel || query + thread >= p.x.queries.count) return;
      int32_t most = INT32_MIN, least = INT32_MAX;
      for (int share = 0; share < kRowShares; ++share) {
        if (shared.extremes[0][thread][share] > most) most = shared.extremes[0][thread][share];
        if (shared.extremes[1][thread][share] < least) least = shared.extremes[1][thread][share];
      }
      int32_t *part = p.parts + 2 * ((query + thread) * p.stripes + stripe);
      part[0] = most;
      part[1] = least;
    });
  }
};

struct ExtremesJoin {  // a thread a query
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  using Registers = Nothing;
  const int32_t *parts;
  int64_t queries, stripes;
  int32_t *most, *least;

  int64_t blocks() const { return parts_of(queries, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const ExtremesJoin &p, Team &team, Nothing &, int64_t block) {
    team.apart([&](int thread, Nothing &) {
      const int64_t query = block * kThreads + thread;
      if (query >= p.queries) return;
      int32_t most = INT32_MIN, least = INT32_MAX;
      for (const int32_t *part = p.parts + 2 * query * p.stripes; part < p.parts + 2 * (query + 1) * p.stripes; part += 2) {
        if (part[0] > most) most = part[0];
        if (part[1] < least) least = part[1];
      }
      p.most[query] = most;
      p.least[query] = least;
    });
  }
};

template <typename Launch>
static int row_extremes(const Launch &launch, const ByteQueries &queries, const ByteRows &words, const Levels &levels,
                        const int32_t *values, const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace) {
  const int64_t stripes = stripes_of(queries.count, words.count, kMostStripes), each = stripe_words(words.count, stripes);
  auto *parts = reinterpret_cast<int32_t *>(workspace);
  const int failed = launch(ExtremesStripe{sides_of(queries, words), levels, values, word_values, stripes, each, parts});
  return failed != 0 ? failed : launch(ExtremesJoin{parts, queries.count, stripes, most, least});
}

}  // namespace privkt::blocks

// Distances between int8 queries and words in tiles of 128 x 128, on tensor cores, exactly.
//
// 256 threads, 8 warps of 64 queries x 32 words each, out of products of 16 x 32 by 32 x 8 bytes that a warp makes together
// (mma.sync m16n8k32, PTX ISA 8.x section 9.7.14): int32 sums of exact products, which the bounds of exponential.h keep below
// 2^31, so that no order of addition shows. 64 bytes of both sides at a time go through three places in shared memory: while one
// is multiplied, the next has landed and the one after it is on its way; one barrier for 64 bytes. Lines of 80 bytes keep the
// eight rows of a fragment in different banks.
//
// The C++ compiler gets the fragments of all 32 threads by the very loads that a GPU's threads do, and multiplies them as PTX
// defines the fragments: a wrong address there shows in the played blocks.
#pragma once

#include "privkt/blocks/copies.h"
#include "privkt/token_blocks.h"

namespace privkt::blocks {

constexpr int kPanel = 128, kBytesDeep = 64, kStages = 3, kByteThreads = 256;
constexpr int kLine = (kBytesDeep + kCopied) / 4;  // 32-bit words of a line in shared memory
constexpr int kWarpRows = 64, kWarpCols = 32, kDown = kWarpRows / 16, kAlong = kWarpCols / 8;
constexpr int kCopiesOfLine = kBytesDeep / kCopied, kLinesApart = kByteThreads / kCopiesOfLine;
constexpr int kLinesOfThread = kPanel / kLinesApart;
constexpr int kRowSlots = 2 * kDown, kRowShares = 4 * kPanel / kWarpCols;  // rows of a thread; threads that share a row
static_assert(kByteThreads / 32 * kWarpRows * kWarpCols == kPanel * kPanel, "warps must cover the tile");
static_assert(kTokenTile % kPanel == 0, "a tile of sums must consist of whole panels");

struct alignas(16) BytePanel {
  uint32_t at[kPanel][kLine];
};

struct BytePanels {
  BytePanel queries[kStages], words[kStages];
};

struct ByteSides {
  ByteQueries queries;
  ByteRows words;
  int unit;  // 16 or 4 where it divides every row's address, else 1
};

struct ByteRegisters {
  int32_t sum[kDown][kAlong][4], bias[kRowSlots];
  const int8_t *rows[kLinesOfThread];  // the queries that the thread brings; null: none
  Copies<2 * kLinesOfThread, kStages> copies;
};

static inline ByteSides sides_of(const ByteQueries &queries, const ByteRows &words) {
  const uint64_t all = uint64_t(reinterpret_cast<uintptr_t>(queries.rows.data)) | uint64_t(queries.rows.stride) |
                       uint64_t(reinterpret_cast<uintptr_t>(words.data)) | uint64_t(words.stride);
  return {queries, words, all % 16 == 0 ? 16 : (all % 4 == 0 ? 4 : 1)};
}

PRIVKT_FN int64_t vector_of(const ByteQueries &queries, int64_t i) { return queries.ids == nullptr ? i : queries.ids[i]; }

PRIVKT_FN int32_t distance_of(int32_t query_bias, int32_t word_bias, int32_t product) {
  const int32_t x = query_bias + word_bias - 2 * product;
  return x > 0 ? x : 0;
}

PRIVKT_FN int32_t four_products(uint32_t a, uint32_t b, int32_t sum) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 610
  return __dp4a(int(a), int(b), sum);
#else
  for (int byte = 0; byte < 4; ++byte) sum += int32_t(int8_t(a >> (8 * byte))) * int32_t(int8_t(b >> (8 * byte)));
  return sum;
#endif
}

// <a, b> over the 4-byte words `first`, first + apart, ...; `unit` as in ByteSides.
PRIVKT_FN int32_t part_of_product(const int8_t *a, const int8_t *b, int64_t width, int unit, int64_t first, int64_t apart) {
  int32_t sum = 0;
  for (int64_t i = 4 * first; i < width; i += 4 * apart) {
    if (unit >= 4 && i + 4 <= width) {
      sum = four_products(*reinterpret_cast<const uint32_t *>(a + i), *reinterpret_cast<const uint32_t *>(b + i), sum);
    } else {
      for (int64_t j = i; j < width && j < i + 4; ++j) sum += int32_t(a[j]) * int32_t(b[j]);
    }
  }
  return sum;
}

// Word `i` of a thread's fragment: four bytes of one query, or of one word of the vocabulary, from byte k of the line on.
PRIVKT_BLOCK_FN uint32_t query_fragment(const BytePanel &panel, int row, int k, int lane, int i) {
  return panel.at[row + lane / 4 + i % 2 * 8][k / 4 + lane % 4 + i / 2 * 4];
}
PRIVKT_BLOCK_FN uint32_t word_fragment(const BytePanel &panel, int column, int k, int lane, int i) {
  return panel.at[column + lane / 4][k / 4 + lane % 4 + i * 4];
}

// Where the thread's sum[..][..][i] lies in the product of 16 x 8 that it belongs to.
PRIVKT_BLOCK_FN int row_in_product(int lane, int i) { return lane / 4 + i / 2 * 8; }
PRIVKT_BLOCK_FN int column_in_product(int lane, int i) { return lane % 4 * 2 + i % 2; }
PRIVKT_BLOCK_FN int warp_row(int thread) { return thread / 32 % (kPanel / kWarpRows) * kWarpRows; }
PRIVKT_BLOCK_FN int warp_column(int thread) { return thread / 32 / (kPanel / kWarpRows) * kWarpCols; }
// Which of the kRowShares threads with the same rows this is.
PRIVKT_BLOCK_FN int share_of(int thread) { return warp_column(thread) / kWarpCols * 4 + thread % 4; }

PRIVKT_BLOCK_FN void multiply_bytes(const BytePanels &panels, int stage, int thread, int32_t (*sum)[kAlong][4]) {
  const BytePanel &left = panels.queries[stage], &right = panels.words[stage];
  const int lane = thread % 32, row = warp_row(thread), column = warp_column(thread);
  PRIVKT_UNROLLED
  for (int k = 0; k < kBytesDeep; k += 32) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t b[kAlong][2];
    PRIVKT_UNROLLED
    for (int n = 0; n < kAlong; ++n) {
      for (int i = 0; i < 2; ++i) b[n][i] = word_fragment(right, column + 8 * n, k, lane, i);
    }
    PRIVKT_UNROLLED
    for (int m = 0; m < kDown; ++m) {
      uint32_t a[4];
      PRIVKT_UNROLLED
      for (int i = 0; i < 4; ++i) a[i] = query_fragment(left, row + 16 * m, k, lane, i);
      PRIVKT_UNROLLED
      for (int n = 0; n < kAlong; ++n) {
        int32_t *c = sum[m][n];
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[n][0]), "r"(b[n][1]));
      }
    }
#else
    for (int m = 0; m < kDown; ++m) {
      for (int n = 0; n < kAlong; ++n) {
        for (int i = 0; i < 4; ++i) {
          const int r = row_in_product(lane, i), c = column_in_product(lane, i);
          for (int q = 0; q < 8; ++q) {  // bytes 4 q of a row are with lane q % 4 of its eight, those of a column likewise
            const uint32_t a = query_fragment(left, row + 16 * m, k, r % 8 * 4 + q % 4, r / 8 + q / 4 * 2);
            const uint32_t b = word_fragment(right, column + 8 * n, k, c * 4 + q % 4, q / 4);
            sum[m][n][i] = four_products(a, b, sum[m][n][i]);
          }
        }
      }
    }
#endif
  }
}

struct BytePlace {  // 64 bytes of a tile's words
  int64_t word, k;
  int stage;
};

PRIVKT_BLOCK_FN void go_on(BytePlace &at, int64_t width) {
  at.k += kBytesDeep;
  at.stage = at.stage + 1 == kStages ? 0 : at.stage + 1;
  if (at.k < width) return;
  at.k = 0;
  at.word += kPanel;
}

// Begins the thread's copies for a place, a group; none beyond the last word. What is no query, word or byte becomes zeros.
PRIVKT_BLOCK_FN void bring(BytePanels &panels, const ByteSides &x, const BytePlace &at, int64_t to, int thread,
                           ByteRegisters &mine) {
  if (at.word < to) {
    const int part = thread % kCopiesOfLine;
    const int64_t k = at.k + part * kCopied;
    const int inside = int(k < x.words.width ? smaller(kCopied, x.words.width - k) : 0);
    PRIVKT_UNROLLED
    for (int n = 0; n < kLinesOfThread; ++n) {
      const int line = thread / kCopiesOfLine + n * kLinesApart;
      const int8_t *query = mine.rows[n];
      const int here = query == nullptr ? 0 : inside;
      mine.copies.begin(&panels.queries[at.stage].at[line][part * 4], here > 0 ? query + k : x.queries.rows.data, here, x.unit);
      const int there = at.word + line < to ? inside : 0;
      mine.copies.begin(&panels.words[at.stage].at[line][part * 4],
                        there > 0 ? x.words.data + (at.word + line) * x.words.stride + k : x.words.data, there, x.unit);
    }
  }
  mine.copies.close_group();
}

PRIVKT_BLOCK_FN void clear(ByteRegisters &mine) {
  PRIVKT_UNROLLED
  for (int m = 0; m < kDown; ++m) {
    PRIVKT_UNROLLED
    for (int n = 0; n < kAlong; ++n) {
      PRIVKT_UNROLLED
      for (int i = 0; i < 4; ++i) mine.sum[m][n][i] = 0;
    }
  }
}

PRIVKT_BLOCK_FN int row_of_slot(int thread, int slot) {
  return warp_row(thread) + slot / 2 * 16 + row_in_product(thread % 32, slot % 2 * 2);
}

// The panel of queries from `query` on against the words from `from` to `to`, of which `from` begins a panel. Once a panel's
// sums are made: ended(thread, mine, word) for every thread, then, all having waited, between(). One panel's sums stay in
// the registers where they are `kept`.
template <bool kept = false, typename Team, typename Ended, typename Between>
PRIVKT_BLOCK_FN void stream_words(Team &team, BytePanels &panels, const ByteSides &x, int64_t query, int64_t from, int64_t to,
                                  Ended ended, Between between) {
  const int64_t width = x.words.width;
  BytePlace here = {from, 0, 0}, ahead = here;
  team.each([&](int thread, auto &mine) {
    PRIVKT_UNROLLED
    for (int n = 0; n < kLinesOfThread; ++n) {
      const int64_t i = query + thread / kCopiesOfLine + n * kLinesApart;
      const bool there = i < x.queries.count;
      mine.tile.rows[n] = there ? x.queries.rows.data + vector_of(x.queries, i) * x.queries.rows.stride : nullptr;
    }
    PRIVKT_UNROLLED
    for (int slot = 0; slot < kRowSlots; ++slot) {
      const int64_t i = query + row_of_slot(thread, slot);
      mine.tile.bias[slot] = i < x.queries.count ? x.queries.rows.bias[vector_of(x.queries, i)] : 0;
    }
    clear(mine.tile);
    mine.tile.copies.reset();
    BytePlace at = here;
    for (int n = 0; n < kStages - 1; ++n, go_on(at, width)) bring(panels, x, at, to, thread, mine.tile);
    mine.tile.copies.template wait_for_all_but<kStages - 2>();
  });
  for (int n = 0; n < kStages - 1; ++n) go_on(ahead, width);
  while (here.word < to) {
    const bool last = here.k + kBytesDeep >= width;
    team.each([&](int thread, auto &mine) {
      bring(panels, x, ahead, to, thread, mine.tile);
      multiply_bytes(panels, here.stage, thread, mine.tile.sum);
      if (last) {
        ended(thread, mine, here.word);
        if (!kept) clear(mine.tile);
      }
      mine.tile.copies.template wait_for_all_but<kStages - 2>();
    });
    go_on(here, width);
    go_on(ahead, width);
    if (last) between();
  }
}

// use(slot, row, column, x) for each of a thread's distances to words below `to`, slots and columns by ascending number. Rows
// and columns are the panel's; where a row is no query, x means nothing.
template <typename Use>
PRIVKT_BLOCK_FN void each_distance(const ByteRegisters &mine, const ByteRows &words, int64_t word, int64_t to, int thread,
                                   Use use) {
  PRIVKT_UNROLLED
  for (int n = 0; n < kAlong; ++n) {
    PRIVKT_UNROLLED
    for (int i = 0; i < 2; ++i) {
      const int column = warp_column(thread) + 8 * n + column_in_product(thread % 32, i);
      if (word + column >= to) continue;
      const int32_t bias = words.bias[word + column];
      PRIVKT_UNROLLED
      for (int slot = 0; slot < kRowSlots; ++slot) {
        use(slot, row_of_slot(thread, slot), column, distance_of(mine.bias[slot], bias, mine.sum[slot / 2][n][slot % 2 * 2 + i]));
      }
    }
  }
}

// Stripes of whole panels, as many as fill a GPU when there are few queries; `most` bounds them.
constexpr int64_t kMostStripes = 256;
static inline int64_t stripes_of(int64_t queries, int64_t words, int64_t most) {
  const int64_t panels = parts_of(queries, kPanel), tiles = parts_of(words, kPanel);
  int64_t stripes = 1;
  while (stripes * panels < kMostStripes && 2 * stripes <= tiles && 2 * stripes <= most) stripes *= 2;
  return stripes;
}
static inline int64_t stripe_words(int64_t words, int64_t stripes) { return parts_of(parts_of(words, kPanel), stripes) * kPanel; }

// Queries of a round where each needs `each` integers of the workspace: whole panels, at least one.
static inline int64_t round_of(int64_t queries, int64_t each) {
  const int64_t panels = token_space / (each * kPanel), whole = parts_of(queries, kPanel);
  return smaller(panels < 1 ? 1 : panels, whole < 1 ? 1 : whole) * kPanel;
}

// A part of the queries, as queries of their own.
static inline ByteQueries part_of(ByteQueries queries, int64_t from, int64_t count) {
  if (queries.ids != nullptr) {
    queries.ids += from;
  } else {
    queries.rows.data += from * queries.rows.stride;
    queries.rows.bias += from;
    queries.rows.count = count;
  }
  queries.count = count;
  return queries;
}

}  // namespace privkt::blocks

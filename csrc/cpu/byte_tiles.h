// Products of int8 vectors in register tiles, exactly: int32 holds every sum that exponential.h's bounds allow.
//
// With VNNI, four bytes a lane: the words are shifted by 128 to be unsigned, which each query's bias takes back. Else two int16
// a lane, whose products no instruction saturates. Sums are added to by assembly: gcc 12 would move them to memory and back around
// the intrinsics, which costs half of the speed. Everything here is static, for the reason given in portable.h.
#pragma once

#include "isa.h"
#include "privkt/exponential.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AMX_INT8__) || defined(PRIVKT_PLAYED_AMX)
#include "amx_tiles.h"
#endif

namespace privkt::PRIVKT_ISA {

namespace {

#if defined(__AVX512BW__)
typedef __m512i Ints;
#if defined(PRIVKT_AMX)
constexpr int kInts = 16, kQueryRows = 2 * kTileRows, kWordVecs = 2;
#else
constexpr int kInts = 16, kQueryRows = 12, kWordVecs = 2;
#endif
#define PRIVKT_EACH_ROW(row) row(0) row(1) row(2) row(3) row(4) row(5) row(6) row(7) row(8) row(9) row(10) row(11)
inline Ints zero_ints() { return _mm512_setzero_si512(); }
inline Ints splat_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints load_ints(const int32_t *p) { return _mm512_loadu_si512(p); }
inline void store_ints(int32_t *p, Ints x) { _mm512_storeu_si512(p, x); }
// As assembly: gcc 12 may keep the 16 bits of a mask in memory and read 32 back.
inline uint32_t bits_of(__mmask16 lanes) {
  uint32_t bits;
  asm("kmovw %1, %0" : "=r"(bits) : "k"(lanes));
  return bits;
}
inline Ints distances(Ints query, Ints word, Ints sum) {
  return _mm512_max_epi32(_mm512_sub_epi32(_mm512_add_epi32(query, word), _mm512_slli_epi32(sum, 1)), _mm512_setzero_si512());
}
#if defined(__AVX512VNNI__) && !defined(PRIVKT_AMX)
inline void add_products(Ints &sum, const int32_t *left, Ints right) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(right), "m"(*left));
}
#endif
#elif defined(__AVX2__)
typedef __m256i Ints;
constexpr int kInts = 8, kQueryRows = 6, kWordVecs = 2;
#define PRIVKT_EACH_ROW(row) row(0) row(1) row(2) row(3) row(4) row(5)
inline Ints zero_ints() { return _mm256_setzero_si256(); }
inline Ints splat_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints load_ints(const int32_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
inline void store_ints(int32_t *p, Ints x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
inline Ints distances(Ints query, Ints word, Ints sum) {
  return _mm256_max_epi32(_mm256_sub_epi32(_mm256_add_epi32(query, word), _mm256_slli_epi32(sum, 1)), _mm256_setzero_si256());
}
#else
struct Ints {
  int32_t lane[8];
};
constexpr int kInts = 8, kQueryRows = 4, kWordVecs = 1;
inline Ints splat_ints(int32_t x) {
  Ints v;
  for (int i = 0; i < kInts; ++i) v.lane[i] = x;
  return v;
}
inline Ints zero_ints() { return splat_ints(0); }
inline Ints load_ints(const int32_t *p) {
  Ints v;
  memcpy(v.lane, p, sizeof v.lane);
  return v;
}
inline void store_ints(int32_t *p, Ints x) { memcpy(p, x.lane, sizeof x.lane); }
inline Ints distances(Ints query, Ints word, Ints sum) {
  for (int i = 0; i < kInts; ++i) {
    const int32_t x = query.lane[i] + word.lane[i] - 2 * sum.lane[i];
    sum.lane[i] = x > 0 ? x : 0;
  }
  return sum;
}
inline void add_products(Ints &sum, const int32_t *left, Ints right) {
  for (int i = 0; i < kInts; ++i) {
    const int32_t r = right.lane[i];
    sum.lane[i] += int32_t(int16_t(*left)) * int16_t(r) + (*left >> 16) * (r >> 16);
  }
}
#endif

#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(PRIVKT_AMX)
inline void add_products(Ints &sum, const int32_t *left, Ints right) {
  Ints products;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(products) : "v"(splat_ints(*left)), "v"(right));
}
#endif

constexpr int kWordCols = kWordVecs * kInts;
static_assert(kTokenTile % kWordCols == 0, "a tile of sums must consist of whole panels");
static_assert(token_rows(1) % kQueryRows == 0 && token_rows(4096) % kQueryRows == 0 && token_rows(4097) % kQueryRows == 0,
              "a block of queries must consist of whole panels");

#if defined(__AVX512VNNI__) || defined(PRIVKT_AMX)
constexpr int kGroup = 4;  // elements of a lane
inline int32_t lane_of(const int8_t *p, int count) {
  uint32_t word = 0;
  for (int i = 0; i < count; ++i) word |= uint32_t(uint8_t(p[i])) << (8 * i);
  return int32_t(word);
}
inline int32_t whole_lane(const int8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return word;
}
#if defined(PRIVKT_AMX)
constexpr int kStep = kTileLanes;  // lanes are a multiple of it
constexpr int32_t kShifted = 0;
inline int32_t word_lane(int32_t lane) { return lane; }
#else
constexpr int kStep = 1;
constexpr int32_t kShifted = 128;
inline int32_t word_lane(int32_t lane) { return int32_t(uint32_t(lane) ^ 0x80808080u); }
struct TileScope {
  TileScope() {}
};
#endif
#else
constexpr int kGroup = 2, kStep = 1;
constexpr int32_t kShifted = 0;
struct TileScope {
  TileScope() {}
};
inline int32_t lane_of(const int8_t *p, int count) {
  return int32_t(uint32_t(uint16_t(int16_t(p[0]))) | (count > 1 ? uint32_t(uint16_t(int16_t(p[1]))) << 16 : 0u));
}
inline int32_t whole_lane(const int8_t *p) { return lane_of(p, 2); }
inline int32_t word_lane(int32_t lane) { return lane; }
#endif

inline int64_t groups_of(int64_t width) { return (width + kGroup * kStep - 1) / (kGroup * kStep) * kStep; }

// Vectors as [groups][panel] lanes, or [groups / kStep][panel][kStep] of queries; what is not there is zeros. row(i) is where
// vector i lies.
template <int panel, bool words, typename Row>
inline void pack_lanes(Row row, int64_t count, int64_t width, int32_t *to) {
  const int64_t whole = width / kGroup, groups = groups_of(width);
  const auto put = [&](int64_t c, int64_t t, int32_t lane) {
    if (words || kStep == 1) {
      to[t * panel + c] = words ? word_lane(lane) : lane;
    } else {
      to[(t / kStep * panel + c) * kStep + t % kStep] = lane;
    }
  };
  for (int64_t c = 0; c < panel; ++c) {
    const int8_t *from = c < count ? row(c) : nullptr;
    int64_t t = 0;
    for (; from != nullptr && t < whole; ++t) put(c, t, whole_lane(from + t * kGroup));
    if (from != nullptr && t * kGroup < width) put(c, t, lane_of(from + t * kGroup, int(width - t * kGroup))), ++t;
    for (; t < groups; ++t) put(c, t, 0);
  }
}

// x[i][j] of the query panel and the word panel.
#if defined(PRIVKT_AMX)
inline void distance_tile(const int32_t *left, const int32_t *right, int64_t groups, const int32_t *query_bias,
                          const int32_t *word_bias, int32_t *tile) {
  product_tile(left, right, groups, tile);
  for (int v = 0; v < kWordCols; v += kInts) {
    const Ints word = load_ints(word_bias + v);
    for (int i = 0; i < kQueryRows; ++i) {
      int32_t *x = tile + i * kWordCols + v;
      store_ints(x, distances(splat_ints(query_bias[i]), word, load_ints(x)));
    }
  }
}
#elif defined(__AVX512BW__) || defined(__AVX2__)
// Each sum is a variable of its own: gcc keeps an array of them in memory, which costs half of the speed.
inline void distance_tile(const int32_t *left, const int32_t *right, int64_t groups, const int32_t *query_bias,
                          const int32_t *word_bias, int32_t *tile) {
  static_assert(kWordVecs == 2, "two sums a row are written out");
#define PRIVKT_START(i) Ints low##i = zero_ints(), high##i = zero_ints();
#define PRIVKT_ADD(i)                             \
  add_products(low##i, left + i, right_low);      \
  add_products(high##i, left + i, right_high);
#define PRIVKT_STORE(i)                                                                                  \
  store_ints(tile + i * kWordCols, distances(splat_ints(query_bias[i]), load_ints(word_bias), low##i));  \
  store_ints(tile + i * kWordCols + kInts, distances(splat_ints(query_bias[i]), load_ints(word_bias + kInts), high##i));
  PRIVKT_EACH_ROW(PRIVKT_START)
  for (int64_t t = 0; t < groups; ++t, left += kQueryRows, right += kWordCols) {
    const Ints right_low = load_ints(right), right_high = load_ints(right + kInts);
    PRIVKT_EACH_ROW(PRIVKT_ADD)
  }
  PRIVKT_EACH_ROW(PRIVKT_STORE)
#undef PRIVKT_START
#undef PRIVKT_ADD
#undef PRIVKT_STORE
}
#else
inline void distance_tile(const int32_t *left, const int32_t *right, int64_t groups, const int32_t *query_bias,
                          const int32_t *word_bias, int32_t *tile) {
  Ints sum[kQueryRows];
  for (int i = 0; i < kQueryRows; ++i) sum[i] = zero_ints();
  for (int64_t t = 0; t < groups; ++t) {
    const Ints r = load_ints(right + t * kWordCols);
    for (int i = 0; i < kQueryRows; ++i) add_products(sum[i], left + t * kQueryRows + i, r);
  }
  for (int i = 0; i < kQueryRows; ++i) {
    store_ints(tile + i * kWordCols, distances(splat_ints(query_bias[i]), load_ints(word_bias), sum[i]));
  }
}
#endif

inline int32_t dot(const int8_t *a, const int8_t *b, int64_t width) {
  int32_t sum = 0;
  int64_t i = 0;
#if defined(__AVX512BW__)
  __m512i wide = _mm512_setzero_si512();
  for (; i + 32 <= width; i += 32) {
    const __m512i x = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(a + i)));
    const __m512i y = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(b + i)));
    wide = _mm512_add_epi32(wide, _mm512_madd_epi16(x, y));
  }
  sum = _mm512_reduce_add_epi32(wide);
#elif defined(__AVX2__)
  __m256i wide = _mm256_setzero_si256();
  for (; i + 16 <= width; i += 16) {
    const __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a + i)));
    const __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(b + i)));
    wide = _mm256_add_epi32(wide, _mm256_madd_epi16(x, y));
  }
  int32_t each[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(each), wide);
  for (int lane = 0; lane < 8; ++lane) sum += each[lane];
#endif
  for (; i < width; ++i) sum += int32_t(a[i]) * int32_t(b[i]);
  return sum;
}

inline int64_t vector_of(const ByteQueries &queries, int64_t i) { return queries.ids == nullptr ? i : queries.ids[i]; }

inline int32_t distance(const ByteQueries &queries, int64_t i, const ByteRows &words, int64_t word) {
  const int64_t at = vector_of(queries, i);
  const int32_t product = dot(queries.rows.data + at * queries.rows.stride, words.data + word * words.stride, words.width);
  const int32_t x = queries.rows.bias[at] + words.bias[word] - 2 * product;
  return x > 0 ? x : 0;
}

// A block of queries against the words from..to - 1. use(query, queries, word, words, tile): x of some queries, numbered within the
// block, and some words, row i of the tile at tile + i * kWordCols. Pairs of which use has no need by wanted(query, word) may
// be left out by whole tiles. `memory` holds token_rows(width) queries, their biases and a panel of words.
template <typename Wanted, typename Use>
inline void distances_by_tiles(const ByteQueries &queries, int64_t first_query, int64_t count, const ByteRows &words, int64_t from,
                               int64_t to, int32_t *memory, Wanted wanted, Use use) {
  const int64_t width = words.width, groups = groups_of(width);
  const int64_t panels = (count + kQueryRows - 1) / kQueryRows;
  int32_t *bias = memory, *left = bias + panels * kQueryRows, *right = left + panels * kQueryRows * groups;
  alignas(64) int32_t tile[kQueryRows * kWordCols];
  int32_t rest[kWordCols] = {};
  const TileScope scope;
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t first = p * kQueryRows;
    const auto row = [&](int64_t i) { return queries.rows.data + vector_of(queries, first_query + first + i) * queries.rows.stride; };
    pack_lanes<kQueryRows, false>(row, count - first, width, left + first * groups);
    for (int64_t i = 0; i < kQueryRows; ++i) {
      bias[first + i] = 0;
      if (first + i >= count) continue;
      int32_t sum = 0;
      if (kShifted != 0) {
        for (int64_t j = 0; j < width; ++j) sum += row(i)[j];
      }
      bias[first + i] = queries.rows.bias[vector_of(queries, first_query + first + i)] + 2 * kShifted * sum;
    }
  }
  for (int64_t word = from; word < to; word += kWordCols) {
    const int64_t here = to - word < kWordCols ? to - word : kWordCols;
    pack_lanes<kWordCols, true>([&](int64_t i) { return words.data + (word + i) * words.stride; }, here, width, right);
    for (int64_t c = 0; here < kWordCols && c < here; ++c) rest[c] = words.bias[word + c];
    const int32_t *word_bias = here < kWordCols ? rest : words.bias + word;
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = p * kQueryRows, rows = count - first < kQueryRows ? count - first : kQueryRows;
      if (!wanted(first, word + here - 1)) continue;
      distance_tile(left + first * groups, right, groups, bias + first, word_bias, tile);
      use(first, rows, word, here, tile);
    }
  }
}

// A block of queries against every word.
template <typename Use>
inline void distances_by_tiles(const ByteQueries &queries, int64_t from, int64_t count, const ByteRows &words, int32_t *memory,
                               Use use) {
  distances_by_tiles(queries, from, count, words, 0, words.count, memory, [](int64_t, int64_t) { return true; }, use);
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// Levels and weights of many distances at once: the vector forms of level_of and weight_at in exponential.h.
//
// The weights of kInts levels are two vectors of 64-bit integers: int32 weights lie in the first where their lane is even, int64
// weights where it is in the first half (lane_of_weight).
#pragma once

#include "byte_tiles.h"

namespace privkt::PRIVKT_ISA {

namespace {

struct LevelRule {
  int up, down;
  int32_t limit, last;
  bool root;
  explicit LevelRule(const Levels &levels)
      : up(levels.shift < 0 ? -levels.shift : 0),
        down(levels.shift > 0 ? levels.shift : 0),
        limit(((1 << 30) - 1) >> up),
        last(levels.last),
        root(levels.root) {}
};

#if defined(__AVX512BW__)
inline Ints levels_of(Ints x, const LevelRule &rule) {
  x = _mm512_min_epi32(x, _mm512_set1_epi32(rule.limit));
  x = _mm512_srl_epi32(_mm512_sll_epi32(x, _mm_cvtsi32_si128(rule.up)), _mm_cvtsi32_si128(rule.down));
  if (rule.root) {
    const Ints one = _mm512_set1_epi32(1);
    Ints t = _mm512_cvttps_epi32(_mm512_sqrt_ps(_mm512_cvtepi32_ps(x)));
    const Ints rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(t, t));
    const __mmask16 less = _mm512_cmplt_epi32_mask(rest, _mm512_setzero_si512());
    const __mmask16 more = _mm512_cmpgt_epi32_mask(rest, _mm512_slli_epi32(t, 1));
    t = _mm512_mask_sub_epi32(t, less, t, one);
    x = _mm512_mask_add_epi32(t, more, t, one);
  }
  return _mm512_min_epi32(x, _mm512_set1_epi32(rule.last));
}

typedef __m512i Longs;
constexpr int kLongs = 8;
inline Longs zero_longs() { return _mm512_setzero_si512(); }
inline Longs load_longs(const int64_t *p) { return _mm512_loadu_si512(p); }
inline void store_longs(int64_t *p, Longs x) { _mm512_storeu_si512(p, x); }
inline Longs sum_of_longs(Longs a, Longs b) { return _mm512_add_epi64(a, b); }

template <bool wide>
inline void weigh(Ints levels, const void *weights, Longs &first, Longs &second) {
  if (wide) {
    const auto *table = static_cast<const long long *>(weights);
    first = _mm512_i32gather_epi64(_mm512_castsi512_si256(levels), table, 8);
    second = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(levels, 1), table, 8);
  } else {
    const __m512i w = _mm512_i32gather_epi32(levels, static_cast<const int *>(weights), 4);
    first = _mm512_and_si512(w, _mm512_set1_epi64(0xffffffff));
    second = _mm512_srli_epi64(w, 32);
  }
}
#elif defined(__AVX2__)
inline Ints levels_of(Ints x, const LevelRule &rule) {
  x = _mm256_min_epi32(x, _mm256_set1_epi32(rule.limit));
  x = _mm256_srl_epi32(_mm256_sll_epi32(x, _mm_cvtsi32_si128(rule.up)), _mm_cvtsi32_si128(rule.down));
  if (rule.root) {
    Ints t = _mm256_cvttps_epi32(_mm256_sqrt_ps(_mm256_cvtepi32_ps(x)));
    const Ints rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(t, t));
    const Ints less = _mm256_cmpgt_epi32(_mm256_setzero_si256(), rest);  // -1 where true
    const Ints more = _mm256_cmpgt_epi32(rest, _mm256_slli_epi32(t, 1));
    x = _mm256_sub_epi32(_mm256_add_epi32(t, less), more);
  }
  return _mm256_min_epi32(x, _mm256_set1_epi32(rule.last));
}

typedef __m256i Longs;
constexpr int kLongs = 4;
inline Longs zero_longs() { return _mm256_setzero_si256(); }
inline Longs load_longs(const int64_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
inline void store_longs(int64_t *p, Longs x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x); }
inline Longs sum_of_longs(Longs a, Longs b) { return _mm256_add_epi64(a, b); }

template <bool wide>
inline void weigh(Ints levels, const void *weights, Longs &first, Longs &second) {
  if (wide) {
    const auto *table = static_cast<const long long *>(weights);
    first = _mm256_i32gather_epi64(table, _mm256_castsi256_si128(levels), 8);
    second = _mm256_i32gather_epi64(table, _mm256_extracti128_si256(levels, 1), 8);
  } else {
    const __m256i w = _mm256_i32gather_epi32(static_cast<const int *>(weights), levels, 4);
    first = _mm256_and_si256(w, _mm256_set1_epi64x(0xffffffff));
    second = _mm256_srli_epi64(w, 32);
  }
}
#else
inline Ints levels_of(Ints x, const LevelRule &rule) {
  const Levels levels = {rule.down - rule.up, rule.root, rule.last};
  for (int i = 0; i < kInts; ++i) x.lane[i] = level_of(x.lane[i], levels);
  return x;
}

struct Longs {
  int64_t lane[4];
};
constexpr int kLongs = 4;
inline Longs zero_longs() { return {}; }
inline Longs load_longs(const int64_t *p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void store_longs(int64_t *p, Longs x) { memcpy(p, x.lane, sizeof x.lane); }
inline Longs sum_of_longs(Longs a, Longs b) {
  for (int i = 0; i < kLongs; ++i) a.lane[i] += b.lane[i];
  return a;
}

template <bool wide>
inline void weigh(Ints levels, const void *weights, Longs &first, Longs &second) {
  const WeightTable table = {weights, wide};
  for (int i = 0; i < kLongs; ++i) {
    first.lane[i] = int64_t(weight_at(table, levels.lane[wide ? i : 2 * i]));
    second.lane[i] = int64_t(weight_at(table, levels.lane[wide ? kLongs + i : 2 * i + 1]));
  }
}
#endif

static_assert(kInts == 2 * kLongs, "two vectors must hold the weights of one of levels");
inline int lane_of_weight(bool wide, int half, int i) { return wide ? half * kLongs + i : 2 * i + half; }

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// Levels and weights of many distances at once: the vector forms of level_of and weight_at in exponential.h.
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

constexpr int kSums = 8;  // 64-bit partial sums of a query

// sums[..] += the weights of `count` levels, of which a lane's worth is given.
inline void add_weights(Ints levels, int64_t count, const WeightTable &weights, int64_t *sums) {
  const __mmask16 there = count >= kInts ? __mmask16(0xffff) : __mmask16((1u << count) - 1);
  __m512i total = _mm512_loadu_si512(sums);
  if (weights.wide) {
    const auto *table = static_cast<const long long *>(weights.data);
    const __m512i zero = _mm512_setzero_si512();
    const __m256i low = _mm512_castsi512_si256(levels), high = _mm512_extracti64x4_epi64(levels, 1);
    total = _mm512_add_epi64(total, _mm512_mask_i32gather_epi64(zero, __mmask8(there), low, table, 8));
    total = _mm512_add_epi64(total, _mm512_mask_i32gather_epi64(zero, __mmask8(there >> 8), high, table, 8));
  } else {
    const __m512i w = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, levels, static_cast<const int *>(weights.data), 4);
    total = _mm512_add_epi64(total, _mm512_and_si512(w, _mm512_set1_epi64(0xffffffff)));
    total = _mm512_add_epi64(total, _mm512_srli_epi64(w, 32));
  }
  _mm512_storeu_si512(sums, total);
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

constexpr int kSums = 4;

inline void add_weights(Ints levels, int64_t count, const WeightTable &weights, int64_t *sums) {
  const __m256i order = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), zero = _mm256_setzero_si256();
  const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count < kInts ? count : kInts)), order);
  __m256i total = load_ints(reinterpret_cast<const int32_t *>(sums));
  if (weights.wide) {
    const auto *table = static_cast<const long long *>(weights.data);
    for (int half = 0; half < 2; ++half) {
      const __m128i at = half == 0 ? _mm256_castsi256_si128(levels) : _mm256_extracti128_si256(levels, 1);
      const __m128i kept = half == 0 ? _mm256_castsi256_si128(there) : _mm256_extracti128_si256(there, 1);
      total = _mm256_add_epi64(total, _mm256_mask_i32gather_epi64(zero, table, at, _mm256_cvtepi32_epi64(kept), 8));
    }
  } else {
    const __m256i w = _mm256_mask_i32gather_epi32(zero, static_cast<const int *>(weights.data), levels, there, 4);
    total = _mm256_add_epi64(total, _mm256_and_si256(w, _mm256_set1_epi64x(0xffffffff)));
    total = _mm256_add_epi64(total, _mm256_srli_epi64(w, 32));
  }
  store_ints(reinterpret_cast<int32_t *>(sums), total);
}
#else
inline Ints levels_of(Ints x, const LevelRule &rule) {
  const Levels levels = {rule.down - rule.up, rule.root, rule.last};
  for (int i = 0; i < kInts; ++i) x.lane[i] = level_of(x.lane[i], levels);
  return x;
}

constexpr int kSums = 1;

inline void add_weights(Ints levels, int64_t count, const WeightTable &weights, int64_t *sums) {
  for (int i = 0; i < kInts && i < count; ++i) sums[0] += int64_t(weight_at(weights, levels.lane[i]));
}
#endif

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// Words by distance, then number, as one integer; heaps that keep the k least of them; and what finds them among lanes.
#pragma once

#include "byte_tiles.h"

namespace privkt::PRIVKT_ISA {

namespace {

inline uint64_t key_of(int32_t x, int64_t id) { return uint64_t(uint32_t(x)) << 32 | uint64_t(id); }

// Puts a key in the place of the largest of a heap of k.
inline void replace_largest(uint64_t *heap, int64_t k, uint64_t key) {
  int64_t at = 0;
  while (true) {
    int64_t child = 2 * at + 1;
    if (child >= k) break;
    if (child + 1 < k && heap[child + 1] > heap[child]) ++child;
    if (heap[child] <= key) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = key;
}

inline void sort_heap(uint64_t *heap, int64_t k) {
  for (int64_t size = k - 1; size > 0; --size) {
    const uint64_t last = heap[size];
    heap[size] = heap[0];
    replace_largest(heap, size, last);
  }
}

inline int32_t largest_distance(const uint64_t *heap) { return heap[0] >> 63 != 0 ? INT32_MAX : int32_t(heap[0] >> 32); }

// Whether any of the lanes is below the bound; a bit for each lane that is not above its bound; extremes, look-ups and sums.
#if defined(__AVX512BW__)
inline bool any_below(Ints x, int32_t bound) { return _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(bound)) != 0; }
inline uint32_t not_above(Ints x, Ints bound) { return bits_of(_mm512_cmple_epi32_mask(x, bound)); }
inline Ints most_of(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints least_of(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
inline Ints looked_up(const int32_t *values, Ints levels) { return _mm512_i32gather_epi32(levels, values, 4); }
inline Ints sum_of(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
#elif defined(__AVX2__)
inline bool any_below(Ints x, int32_t bound) {
  return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), x)) != 0;
}
inline uint32_t not_above(Ints x, Ints bound) {
  return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, bound)))) ^ 0xff;
}
inline Ints most_of(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
inline Ints least_of(Ints a, Ints b) { return _mm256_min_epi32(a, b); }
inline Ints looked_up(const int32_t *values, Ints levels) { return _mm256_i32gather_epi32(values, levels, 4); }
inline Ints sum_of(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
#else
template <typename Function>
inline Ints by_lane(Ints a, Ints b, Function function) {
  for (int i = 0; i < kInts; ++i) a.lane[i] = function(a.lane[i], b.lane[i]);
  return a;
}
inline bool any_below(Ints x, int32_t bound) {
  for (int i = 0; i < kInts; ++i) {
    if (x.lane[i] < bound) return true;
  }
  return false;
}
inline uint32_t not_above(Ints x, Ints bound) {
  uint32_t mask = 0;
  for (int i = 0; i < kInts; ++i) mask |= uint32_t(x.lane[i] <= bound.lane[i]) << i;
  return mask;
}
inline Ints most_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x > y ? x : y; }); }
inline Ints least_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x < y ? x : y; }); }
inline Ints looked_up(const int32_t *values, Ints levels) {
  for (int i = 0; i < kInts; ++i) levels.lane[i] = values[levels.lane[i]];
  return levels;
}
inline Ints sum_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x + y; }); }
#endif

}  // namespace

}  // namespace privkt::PRIVKT_ISA

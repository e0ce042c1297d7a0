// What streams over the table and keeps little of a row: its nearest words, and the extremes of a function of its levels.
#include "level_sums.h"

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

// Whether any of the lanes is below the bound.
#if defined(__AVX512BW__)
inline bool any_below(Ints x, int32_t bound) { return _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(bound)) != 0; }
inline Ints most_of(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints least_of(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
inline Ints looked_up(const int32_t *values, Ints levels) { return _mm512_i32gather_epi32(levels, values, 4); }
inline Ints sum_of(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
#elif defined(__AVX2__)
inline bool any_below(Ints x, int32_t bound) {
  return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), x)) != 0;
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
inline Ints most_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x > y ? x : y; }); }
inline Ints least_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x < y ? x : y; }); }
inline Ints looked_up(const int32_t *values, Ints levels) {
  for (int i = 0; i < kInts; ++i) levels.lane[i] = values[levels.lane[i]];
  return levels;
}
inline Ints sum_of(Ints a, Ints b) { return by_lane(a, b, [](int32_t x, int32_t y) { return x + y; }); }
#endif

}  // namespace

void nearest_words(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                   int64_t *workspace) {
  const int64_t block = token_rows(words.width);
  auto *heaps = reinterpret_cast<uint64_t *>(workspace);
  auto *packed = reinterpret_cast<int32_t *>(workspace + block * k);
  for (int64_t from = 0; from < queries.count; from += block) {
    const int64_t count = queries.count - from < block ? queries.count - from : block;
    for (int64_t i = 0; i < count * k; ++i) heaps[i] = UINT64_MAX;
    distances_by_tiles(queries, from, count, words, packed,
                       [&](int64_t first, int64_t rows, int64_t word, int64_t here, const int32_t *tile) {
      for (int64_t i = 0; i < rows; ++i) {
        uint64_t *heap = heaps + (first + i) * k;
        for (int64_t v = 0; v < here; v += kInts) {
          // words come by ascending id: one as far as the farthest kept, and later, is never nearer
          if (!any_below(load_ints(tile + i * kWordCols + v), largest_distance(heap))) continue;
          for (int64_t c = v; c < v + kInts && c < here; ++c) {
            const uint64_t key = key_of(tile[i * kWordCols + c], word + c);
            if (key < heap[0]) replace_largest(heap, k, key);
          }
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      uint64_t *heap = heaps + i * k;
      sort_heap(heap, k);
      for (int64_t j = 0; j < k; ++j) {
        ids[(from + i) * k + j] = int32_t(uint32_t(heap[j]));
        distances[(from + i) * k + j] = int32_t(heap[j] >> 32);
      }
    }
  }
}

void row_extremes(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                  const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace) {
  const int64_t block = token_rows(words.width);
  const LevelRule rule(levels);
  auto *highest = reinterpret_cast<int32_t *>(workspace);  // a lane each, [block, kInts]
  int32_t *lowest = highest + block * kInts, *packed = lowest + block * kInts;
  for (int64_t from = 0; from < queries.count; from += block) {
    const int64_t count = queries.count - from < block ? queries.count - from : block;
    for (int64_t i = 0; i < count * kInts; ++i) {
      highest[i] = INT32_MIN;
      lowest[i] = INT32_MAX;
    }
    distances_by_tiles(queries, from, count, words, packed,
                       [&](int64_t first, int64_t rows, int64_t word, int64_t here, const int32_t *tile) {
      for (int64_t i = 0; i < rows; ++i) {
        int32_t *high = highest + (first + i) * kInts, *low = lowest + (first + i) * kInts;
        for (int64_t v = 0; v + kInts <= here; v += kInts) {
          const Ints x = levels_of(load_ints(tile + i * kWordCols + v), rule);
          const Ints value = sum_of(looked_up(values, x), load_ints(word_values + word + v));
          store_ints(high, most_of(load_ints(high), value));
          store_ints(low, least_of(load_ints(low), value));
        }
        for (int64_t c = here - here % kInts; c < here; ++c) {
          const int32_t value = values[level_of(tile[i * kWordCols + c], levels)] + word_values[word + c];
          if (value > high[0]) high[0] = value;
          if (value < low[0]) low[0] = value;
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      most[from + i] = highest[i * kInts];
      least[from + i] = lowest[i * kInts];
      for (int64_t lane = 1; lane < kInts; ++lane) {
        const int32_t high = highest[i * kInts + lane], low = lowest[i * kInts + lane];
        if (high > most[from + i]) most[from + i] = high;
        if (low < least[from + i]) least[from + i] = low;
      }
    }
  }
}

}  // namespace privkt::PRIVKT_ISA

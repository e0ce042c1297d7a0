// What streams over the table and keeps little of a row: its nearest words, and the extremes of a function of its levels.
#include "keys.h"
#include "level_sums.h"

namespace privkt::PRIVKT_ISA {

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

// What is asked of every word of a table against every word of it: x(u, v) = x(v, u), so that each pair is computed once and
// enters both words' results. Sums, minima and lists of the least do not depend on the order of the pairs.
#include "keys.h"
#include "level_sums.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Calls tiles(first, word, tile) for tiles of pairs that all count, of kQueryRows words from `first` on and kWordCols from `word` on;
// and pair(u, v, x) for each other pair of the piece: u < v, or u = v where it is one range against itself.
template <typename Tiles, typename Pair>
inline void pairs_of(const ByteRows &words, const TablePiece &piece, int32_t *memory, Tiles tiles, Pair pair) {
  const ByteQueries every = {words, nullptr, words.count};
  const int64_t block = token_rows(words.width);
  const bool same = piece.from == piece.other_from;
  for (int64_t from = piece.from; from < piece.to; from += block) {
    const int64_t count = piece.to - from < block ? piece.to - from : block;
    const auto wanted = [&](int64_t first, int64_t last_word) { return !same || from + first <= last_word; };
    distances_by_tiles(every, from, count, words, same ? from : piece.other_from, piece.other_to, memory, wanted,
                       [&](int64_t first, int64_t rows, int64_t word, int64_t here, const int32_t *tile) {
      first += from;
      if (rows == kQueryRows && here == kWordCols && (!same || first + rows <= word)) {
        tiles(first, word, tile);
        return;
      }
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t c = 0; c < here; ++c) {
          if (!same || first + i <= word + c) pair(first + i, word + c, tile[i * kWordCols + c]);
        }
      }
    });
  }
}

template <bool wide>
void add_totals(const ByteRows &words, const TablePiece &piece, const Levels &levels, const WeightTable &weights, int64_t *totals,
                int64_t *workspace) {
  const LevelRule rule(levels);
  const auto tiles = [&](int64_t first, int64_t word, const int32_t *tile) {
    Longs own[kQueryRows];
    for (int i = 0; i < kQueryRows; ++i) own[i] = zero_longs();
    for (int v = 0; v < kWordCols; v += kInts) {
      Longs columns[2] = {zero_longs(), zero_longs()};
      for (int i = 0; i < kQueryRows; ++i) {
        Longs half[2];
        weigh<wide>(levels_of(load_ints(tile + i * kWordCols + v), rule), weights.data, half[0], half[1]);
        own[i] = sum_of_longs(own[i], sum_of_longs(half[0], half[1]));
        for (int h = 0; h < 2; ++h) columns[h] = sum_of_longs(columns[h], half[h]);
      }
      for (int h = 0; h < 2; ++h) {
        int64_t each[kLongs];
        store_longs(each, columns[h]);
        for (int i = 0; i < kLongs; ++i) totals[word + v + lane_of_weight(wide, h, i)] += each[i];
      }
    }
    for (int i = 0; i < kQueryRows; ++i) {
      int64_t each[kLongs], sum = 0;
      store_longs(each, own[i]);
      for (int lane = 0; lane < kLongs; ++lane) sum += each[lane];
      totals[first + i] += sum;
    }
  };
  const auto pair = [&](int64_t u, int64_t v, int32_t x) {
    const int64_t weight = int64_t(weight_at(weights, level_of(x, levels)));
    totals[u] += weight;
    if (u != v) totals[v] += weight;
  };
  pairs_of(words, piece, reinterpret_cast<int32_t *>(workspace), tiles, pair);
}

}  // namespace

void table_totals(const ByteRows &words, const TablePiece &piece, const Levels &levels, const WeightTable &weights, int64_t *totals,
                  int64_t *workspace) {
  if (weights.wide) {
    add_totals<true>(words, piece, levels, weights, totals, workspace);
  } else {
    add_totals<false>(words, piece, levels, weights, totals, workspace);
  }
}

void table_nearest(const ByteRows &words, const TablePiece &piece, int64_t k, const TableLists &lists, int64_t *workspace) {
  const auto keep = [&](int64_t word, int64_t other, int32_t x) {
    uint64_t *heap = lists.keys + word * k;
    const uint64_t key = key_of(x, other);
    if (key >= heap[0]) return;
    replace_largest(heap, k, key);
    lists.bounds[word] = largest_distance(heap);
  };
  const auto tiles = [&](int64_t first, int64_t word, const int32_t *tile) {
    for (int v = 0; v < kWordCols; v += kInts) {
      Ints most = load_ints(lists.farthest + word + v);
      for (int i = 0; i < kQueryRows; ++i) {
        const Ints x = load_ints(tile + i * kWordCols + v);
        most = most_of(most, x);
        // words come in any order: one as far as the farthest kept may have the lower number
        const uint32_t rows = not_above(x, splat_ints(lists.bounds[first + i]));
        const uint32_t columns = not_above(x, load_ints(lists.bounds + word + v));
        for (int c = 0; (rows | columns) >> c != 0; ++c) {
          if (rows >> c & 1) keep(first + i, word + v + c, tile[i * kWordCols + v + c]);
          if (columns >> c & 1) keep(word + v + c, first + i, tile[i * kWordCols + v + c]);
        }
      }
      store_ints(lists.farthest + word + v, most);
    }
    for (int i = 0; i < kQueryRows; ++i) {
      int32_t each[kInts];
      Ints most = load_ints(tile + i * kWordCols);
      for (int v = kInts; v < kWordCols; v += kInts) most = most_of(most, load_ints(tile + i * kWordCols + v));
      store_ints(each, most);
      for (int c = 0; c < kInts; ++c) {
        if (each[c] > lists.farthest[first + i]) lists.farthest[first + i] = each[c];
      }
    }
  };
  const auto pair = [&](int64_t u, int64_t v, int32_t x) {
    for (int turn = 0; turn < (u == v ? 1 : 2); ++turn) {
      const int64_t word = turn == 0 ? u : v;
      keep(word, u + v - word, x);
      if (x > lists.farthest[word]) lists.farthest[word] = x;
    }
  };
  pairs_of(words, piece, reinterpret_cast<int32_t *>(workspace), tiles, pair);
}

}  // namespace privkt::PRIVKT_ISA

// The exponential mechanism over a public table of int8 vectors: what is drawn is decided by integers alone.
//
// Between query q and word w stands x = max(bias_q + bias_w - 2 <q, w>, 0), their squared distance where the biases are the
// square norms. Its level t is x shifted, then its integer square root if wanted, at most `last`; its weight is the integer
// weights[t] >= 1. Word w is drawn with probability weights[t(q, w)] / sum, exactly: one uniform integer below the sum.
#pragma once

#include "privkt/chacha20.h"
#include "privkt/kernels.h"

namespace privkt {

// Bounds that keep every x below 2^31: |<q, w>| <= 128^2 kMostBytes = 2^28.
constexpr int64_t kMostBytes = 1 << 14;
constexpr int32_t kMostBias = 1 << 30, kMostWordBias = 1 << 28;
constexpr int32_t kMostLevel = (1 << 15) - 1;

// Vectors of int8, vector i at data + i * stride.
struct ByteRows {
  const int8_t *data;
  const int32_t *bias;
  int64_t count, width, stride;
};

// Query i is vector ids[i] of the rows, or vector i where ids is null.
struct ByteQueries {
  ByteRows rows;
  const int64_t *ids;
  int64_t count;
};

struct Levels {
  int32_t shift;  // to the right; negative: to the left
  bool root;
  int32_t last;
};

struct WeightTable {  // levels 0..last
  const void *data;
  bool wide;  // int64, else int32
};

// Draws of query i go to out[places[j]], j in [starts[i], starts[i + 1]), and are those of coordinate offset + places[j].
struct TokenDraws {
  const int64_t *starts, *places;
  int64_t *out;
  NoiseKey key;
  uint64_t step, offset;
};

// The k words nearest to each word of a table, [words, k]: the least by (x, id), ascending.
struct NeighbourList {
  const int32_t *ids, *distances;
  int64_t k;
};

// Words from..to - 1 of a table against other_from..other_to - 1 of it: two ranges that share no word, or one against itself.
struct TablePiece {
  int64_t from, to, other_from, other_to;
};

// Of every word of a table, the words nearest so far: [words, k] heaps of x << 32 | id, largest first, begun with all ones; the
// largest x in each, begun with INT32_MAX; and the largest x seen at all, begun with 0.
struct TableLists {
  uint64_t *keys;
  int32_t *bounds, *farthest;
};

// Rounds of a draw in fixed time, and public bounds that hold for every word of the table: the sum of its list's weights, and
// the weight of its k-th neighbour.
struct FixedTime {
  int64_t rounds;  // 0: as many as it takes
  uint64_t most_listed, most_tail;
};

PRIVKT_FN int32_t integer_root(int32_t x) {  // 0 <= x < 2^30: the float is at most one off, whatever the rounding
  const int32_t t = int32_t(sqrtf(float(x))), rest = x - t * t;
  return t + int32_t(rest > 2 * t) - int32_t(rest < 0);  // no branch: a draw in fixed time passes here
}

PRIVKT_FN int32_t level_of(int32_t x, const Levels &levels) {
  const int up = levels.shift < 0 ? -levels.shift : 0, down = levels.shift > 0 ? levels.shift : 0;
  const int32_t limit = ((1 << 30) - 1) >> up;
  x = x < 0 ? 0 : (x > limit ? limit : x);
  x = (x << up) >> down;
  if (levels.root) x = integer_root(x);
  return x < levels.last ? x : levels.last;
}

PRIVKT_FN uint64_t weight_at(const WeightTable &weights, int32_t level) {
  return weights.wide ? uint64_t(static_cast<const int64_t *>(weights.data)[level])
                      : uint64_t(static_cast<const int32_t *>(weights.data)[level]);
}

// Word n of token i is word n % 16 of block kTokenBlock + (n / 16 << 46) + i. Gaussian noise has the blocks below 2^61 and from
// 2^63 on, discrete noise those from 2^62 on: no block of one is ever of another.
constexpr uint64_t kTokenBlock = uint64_t(1) << 61;
constexpr int kTokenBits = 46, kTokenNumberBits = 15;

// Permute-and-flip: 32-bit word n of a token's blocks is the coin of vocabulary word n; its choices, at most one a word of the
// vocabulary, are from block kChoiceBlock on, where 2^12 words of 64 bits are left for those that are drawn again.
constexpr uint64_t kChoiceBlock = 10752;
constexpr int64_t kMostFlipped = int64_t(kChoiceBlock) * 16;
static_assert(((uint64_t(1) << kTokenNumberBits) - kChoiceBlock) * 8 >= uint64_t(kMostFlipped) + 4096, "choices must fit");

// Block 0 of a token may lie in memory already, word w at first[w * stride].
struct TokenStream {
  const uint32_t *key;
  uint64_t step, token;
  const uint32_t *first;
  int stride;
  uint64_t used;
  uint32_t block[16];
};

PRIVKT_FN TokenStream token_stream(const NoiseKey &key, uint64_t step, uint64_t token) {
  TokenStream stream = {};
  stream.key = key.word;
  stream.step = step;
  stream.token = token;
  return stream;
}

PRIVKT_FN uint64_t next_word64(TokenStream &stream) {
  const int word = int(stream.used % 8) * 2;
  const uint64_t number = stream.used / 8;
  ++stream.used;
  if (number == 0 && stream.first != nullptr) {
    return stream.first[word * stream.stride] | uint64_t(stream.first[(word + 1) * stream.stride]) << 32;
  }
  if (word == 0) {
    const uint64_t kept = number & ((uint64_t(1) << kTokenNumberBits) - 1);
    chacha20_block_at(stream.key, kTokenBlock | kept << kTokenBits | stream.token, stream.step, stream.block);
  }
  return stream.block[word] | uint64_t(stream.block[word + 1]) << 32;
}

struct Wide {
  uint64_t high, low;
};

PRIVKT_FN Wide multiplied(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
  const auto all = static_cast<unsigned __int128>(a) * b;
  return {uint64_t(all >> 64), uint64_t(all)};
#else
  const uint64_t a0 = uint32_t(a), a1 = a >> 32, b0 = uint32_t(b), b1 = b >> 32;
  const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + uint32_t(middle);
  return {a1 * b1 + (middle >> 32) + (other >> 32), a * b};
#endif
}

// Words whose product with `total` has a low half below this are drawn again (D. Lemire, ACM TOMACS 29, 2019): what is left of
// the 2^64 words is floor(2^64 / total) for each value.
PRIVKT_FN uint64_t refused_below(uint64_t total) { return (uint64_t(0) - total) % total; }

// Uniform in [0, total), total > 0, without bias.
PRIVKT_FN uint64_t uniform_below(uint64_t total, TokenStream &stream) {
  while (true) {
    const Wide product = multiplied(next_word64(stream), total);
    if (product.low >= total || product.low >= refused_below(total)) return product.high;
  }
}

// Queries at a time, columns of words whose weights are summed together, and what they need of memory.
constexpr int64_t kTokenTile = 256;
constexpr int64_t token_rows(int64_t width) { return width <= 1024 ? 480 : (width <= 4096 ? 192 : 96); }
constexpr int64_t token_tiles(int64_t words) { return (words + kTokenTile - 1) / kTokenTile; }
constexpr int64_t token_workspace(int64_t width, int64_t words) {  // in 64-bit integers
  const int64_t groups = width / 2 + 16, rows = token_rows(width);
  return (rows + 32) * groups / 2 + rows * (17 + token_tiles(words)) + 64;
}

constexpr int64_t nearest_workspace(int64_t width, int64_t words, int64_t k) {
  return token_workspace(width, words) + token_rows(width) * k;
}
constexpr int64_t flip_workspace(int64_t width, int64_t words) {  // 2^9 coins of a token at a time, its state of 2^5 integers
  return token_workspace(width, words) + token_rows(width) * (256 + 32);
}
constexpr int64_t kListsTogether = 32;
constexpr int64_t rejection_workspace(int64_t k) { return kListsTogether * k; }

struct TokenKernels {
  const char *isa;
  // totals[i] = sum over all words of the weight of (query i, word).
  void (*weight_totals)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                        int64_t *totals, int64_t *workspace);
  // Draws one word for each place, by the sums of tiles; nothing of queries x words is ever stored.
  void (*exponential_draws)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                            const TokenDraws &draws, int64_t *workspace);
  // The k nearest words of each query: ids and distances [queries, k], ascending by (x, id). k is at most the words.
  void (*nearest_words)(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                        int64_t *workspace);
  // most[i], least[i]: the extremes over all words v of values[level of (query i, v)] + word_values[v].
  void (*row_extremes)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                       const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace);
  // Draws for ids of the table by rejection from its neighbour list: the distribution of exponential_draws from other words of
  // key stream. Place i's draw goes to out[i]. Weights must not grow with their level.
  void (*rejection_draws)(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                          const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key,
                          uint64_t step, uint64_t offset, int64_t *workspace);
  // Permute-and-flip for ids of the table: word v's coin falls with probability weights[its level] / 2^bits, and one of the words
  // whose coin fell is drawn uniformly. int32 weights, of which the first and largest is 2^bits; at most kMostFlipped words.
  void (*flip_draws)(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids,
                     int64_t count, int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace);
  // Every pair of a piece once: totals of each word += its weights towards the piece's other words, and itself where it is there.
  void (*table_totals)(const ByteRows &words, const TablePiece &piece, const Levels &levels, const WeightTable &weights,
                       int64_t *totals, int64_t *workspace);
  // The same for lists of the nearest. Calls that share no word of their pieces may run at once.
  void (*table_nearest)(const ByteRows &words, const TablePiece &piece, int64_t k, const TableLists &lists, int64_t *workspace);
  // words_drawn[i] = the word whose stretch of [0, total of query i) holds r[i], so that tests can enumerate every draw.
  void (*selected_words)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                         const uint64_t *r, int64_t *words_drawn, int64_t *workspace);
};

// The best that this processor and PRIVKT_CPU_ISA allow, or the named one; throws std::runtime_error where it cannot run.
const TokenKernels &token_kernels(const char *isa);
const char *built_token_isas();
// Why the variant for AMX's tiles cannot run here, or nothing.
const char *amx_left_out();

}  // namespace privkt

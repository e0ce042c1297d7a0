// Permute-and-flip by streaming: every word's coin, exactly, and one of those that fell, uniformly.
//
// The first word of a random order whose coin falls is uniform among all whose coins fall, as order and coins are independent.
// A token's own word is at level 0, where the coin always falls.
#include <new>

#include "chacha20_lanes.h"
#include "level_sums.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kBlocks = kGroups * kLanes, kCoins = 16 * kBlocks;  // of a token, made together
static_assert(kCoins <= 512 && kCoins % kWordCols == 0, "coins must fit the workspace and consist of whole panels");

struct Chosen {
  int64_t word;
  uint64_t fallen;
  TokenStream stream;
};
static_assert(sizeof(Chosen) <= 32 * sizeof(int64_t), "a token's state must fit the workspace");

// coins[v] for the words from `word` on, a multiple of kCoins.
inline void toss(const NoiseKey &key, uint64_t step, uint64_t token, int64_t word, uint32_t *coins) {
  uint32_t words[kGroups][16][kLanes];
  chacha20_blocks(key, kTokenBlock | uint64_t(word / 16) << kTokenBits | token, step, words, uint64_t(1) << kTokenBits);
  for (int block = 0; block < kBlocks; ++block) {
    for (int w = 0; w < 16; ++w) coins[block * 16 + w] = words[block / kLanes][w][block % kLanes];
  }
}

// A bit for each lane whose coin, cut to `bits` bits, is below the weight of its level.
inline uint32_t fallen(Ints levels, const int32_t *weights, int bits, const uint32_t *coins) {
#if defined(__AVX512BW__)
  const __m512i cut = _mm512_srl_epi32(_mm512_loadu_si512(coins), _mm_cvtsi32_si128(32 - bits));
  return bits_of(_mm512_cmplt_epi32_mask(cut, _mm512_i32gather_epi32(levels, weights, 4)));
#elif defined(__AVX2__)
  const __m256i cut = _mm256_srl_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(coins)), _mm_cvtsi32_si128(32 - bits));
  return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_i32gather_epi32(weights, levels, 4), cut))));
#else
  uint32_t mask = 0;
  for (int i = 0; i < kInts; ++i) mask |= uint32_t(coins[i] >> (32 - bits) < uint32_t(weights[levels.lane[i]])) << i;
  return mask;
#endif
}

// The n-th that fell takes the place of the one kept with probability 1/n.
inline void keep(Chosen &chosen, int64_t word) {
  if (uniform_below(++chosen.fallen, chosen.stream) == 0) chosen.word = word;
}

}  // namespace

void flip_draws(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids, int64_t count,
                int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace) {
  const ByteQueries queries = {words, ids, count};
  const LevelRule rule(levels);
  const int64_t block = token_rows(words.width);
  auto *states = reinterpret_cast<Chosen *>(workspace);
  auto *coins = reinterpret_cast<uint32_t *>(workspace + block * 32);
  auto *packed = reinterpret_cast<int32_t *>(workspace + block * (32 + 256));
  for (int64_t from = 0; from < count; from += block) {
    const int64_t here = count - from < block ? count - from : block;
    for (int64_t i = 0; i < here; ++i) {
      new (states + i) Chosen{-1, 0, token_stream(key, step, offset + uint64_t(from + i))};
      states[i].stream.used = kChoiceBlock * 8;
    }
    distances_by_tiles(queries, from, here, words, packed,
                       [&](int64_t first, int64_t rows, int64_t word, int64_t columns, const int32_t *tile) {
      for (int64_t i = first; i < first + rows; ++i) {
        uint32_t *own = coins + i * kCoins;
        if (word % kCoins == 0) toss(key, step, offset + uint64_t(from + i), word, own);
        for (int64_t v = 0; v < columns; v += kInts) {
          const Ints x = levels_of(load_ints(tile + (i - first) * kWordCols + v), rule);
          uint32_t mask = fallen(x, weights, bits, own + word % kCoins + v);
          for (int64_t c = v; mask != 0 && c < columns; ++c, mask >>= 1) {
            if (mask & 1) keep(states[i], word + c);
          }
        }
      }
    });
    for (int64_t i = 0; i < here; ++i) out[from + i] = states[i].word;
  }
}

}  // namespace privkt::PRIVKT_ISA

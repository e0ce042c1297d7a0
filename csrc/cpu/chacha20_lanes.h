// ChaCha20 on many blocks at once: one block a vector lane.
#pragma once

#include "vectors.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Blocks computed side by side: one block a vector lane. The width changes nothing but speed.
constexpr int kLanes = kWidth == 1 ? 4 : 2 * kWidth;

#if defined(__GNUC__)
typedef uint32_t Lanes __attribute__((vector_size(4 * kLanes)));
#else
struct Lanes {
  uint32_t lane[kLanes];
  uint32_t &operator[](int i) { return lane[i]; }
};
static inline Lanes operator+(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] += b[i]; return a; }
static inline Lanes operator^(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] ^= b[i]; return a; }
static inline Lanes operator|(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] |= b[i]; return a; }
static inline Lanes operator<<(Lanes a, int n) { for (int i = 0; i < kLanes; ++i) a[i] <<= n; return a; }
static inline Lanes operator>>(Lanes a, int n) { for (int i = 0; i < kLanes; ++i) a[i] >>= n; return a; }
#endif

template <int n>
static inline Lanes rotated(Lanes x) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_rol_epi32((__m512i)x, n);
#elif defined(__AVX2__)
  if (n % 8 == 0) {
    const __m256i bytes = n == 16 ? _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13, 12, 15, 14, 9, 8,
                                                    11, 10, 5, 4, 7, 6, 1, 0, 3, 2)
                                  : _mm256_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3, 14, 13, 12, 15, 10,
                                                    9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3);
    return (Lanes)_mm256_shuffle_epi8((__m256i)x, bytes);
  }
#endif
  return (x << n) | (x >> (32 - n));
}

static inline Lanes splat_word(uint32_t word) {
#if defined(__GNUC__)
  return Lanes{} + word;
#else
  Lanes v;
  for (int i = 0; i < kLanes; ++i) v[i] = word;
  return v;
#endif
}

static inline void lanes_quarter_round(Lanes &a, Lanes &b, Lanes &c, Lanes &d) {
  a = a + b; d = rotated<16>(d ^ a);
  c = c + d; b = rotated<12>(b ^ c);
  a = a + b; d = rotated<8>(d ^ a);
  c = c + d; b = rotated<7>(b ^ c);
}

// Groups of blocks that take turns: one group's instructions wait for each other. Their states must fit the registers.
#if defined(__AVX512F__)
constexpr int kGroups = 2;
#else
constexpr int kGroups = 1;
#endif

// Blocks first, first + stride, ...: out[g][w][lane] is word w of block first + (g kLanes + lane) stride.
static inline void chacha20_blocks(const NoiseKey &key, uint64_t first, uint64_t step, uint32_t out[kGroups][16][kLanes],
                                   uint64_t stride = 1) {
  const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
  uint32_t low[kGroups][kLanes], high[kGroups][kLanes];
  Lanes x[kGroups][16];
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < kLanes; ++i) {
      const uint64_t block = first + uint64_t(g * kLanes + i) * stride;
      low[g][i] = uint32_t(block);
      high[g][i] = uint32_t(block >> 32);
    }
    for (int i = 0; i < 4; ++i) x[g][i] = splat_word(constants[i]);
    for (int i = 0; i < 8; ++i) x[g][4 + i] = splat_word(key.word[i]);
    x[g][12] = load_vector<Lanes>(low[g]);
    x[g][13] = load_vector<Lanes>(high[g]);
    x[g][14] = splat_word(uint32_t(step));
    x[g][15] = splat_word(uint32_t(step >> 32));
  }
  for (int round = 0; round < 10; ++round) {
    for (int g = 0; g < kGroups; ++g) {
      lanes_quarter_round(x[g][0], x[g][4], x[g][8], x[g][12]);
      lanes_quarter_round(x[g][1], x[g][5], x[g][9], x[g][13]);
      lanes_quarter_round(x[g][2], x[g][6], x[g][10], x[g][14]);
      lanes_quarter_round(x[g][3], x[g][7], x[g][11], x[g][15]);
    }
    for (int g = 0; g < kGroups; ++g) {
      lanes_quarter_round(x[g][0], x[g][5], x[g][10], x[g][15]);
      lanes_quarter_round(x[g][1], x[g][6], x[g][11], x[g][12]);
      lanes_quarter_round(x[g][2], x[g][7], x[g][8], x[g][13]);
      lanes_quarter_round(x[g][3], x[g][4], x[g][9], x[g][14]);
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    for (int i = 0; i < 4; ++i) store_vector(out[g][i], x[g][i] + splat_word(constants[i]));
    for (int i = 0; i < 8; ++i) store_vector(out[g][4 + i], x[g][4 + i] + splat_word(key.word[i]));
    store_vector(out[g][12], x[g][12] + load_vector<Lanes>(low[g]));
    store_vector(out[g][13], x[g][13] + load_vector<Lanes>(high[g]));
    store_vector(out[g][14], x[g][14] + splat_word(uint32_t(step)));
    store_vector(out[g][15], x[g][15] + splat_word(uint32_t(step >> 32)));
  }
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

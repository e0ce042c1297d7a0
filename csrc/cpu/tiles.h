// Register tiles: vectors of one instruction set, packed panels, and the product of two panels by fused multiply-adds.
//
// An entry of a product is acc = fma(l_t, r_t, acc) over t ascending from 0: one rounding an operation, in an order that no
// tile shape, block or thread changes. Everything here is static, for the reason given in portable.h.
#pragma once

#include "isa.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define PRIVKT_UNROLL _Pragma("GCC unroll 16")
#else
#define PRIVKT_UNROLL
#endif

namespace privkt::PRIVKT_ISA {

namespace {

#if defined(__AVX512F__)
typedef __m512 Vec;
constexpr int kVec = 16, kTileRows = 12, kTileVecs = 2;  // 24 sums, 2 loads and a splat in 32 registers
inline Vec zero_vec() { return _mm512_setzero_ps(); }
inline Vec splat_vec(float x) { return _mm512_set1_ps(x); }
inline Vec load_vec(const float *p) { return _mm512_loadu_ps(p); }
inline Vec load_vec(const uint16_t *p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16));
}
inline void store_vec(float *p, Vec x) { _mm512_storeu_ps(p, x); }
inline Vec fused(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__AVX2__) && defined(__FMA__)
typedef __m256 Vec;
constexpr int kVec = 8, kTileRows = 6, kTileVecs = 2;  // 12 sums, 2 loads and a splat in 16 registers
inline Vec zero_vec() { return _mm256_setzero_ps(); }
inline Vec splat_vec(float x) { return _mm256_set1_ps(x); }
inline Vec load_vec(const float *p) { return _mm256_loadu_ps(p); }
inline Vec load_vec(const uint16_t *p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline void store_vec(float *p, Vec x) { _mm256_storeu_ps(p, x); }
inline Vec fused(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
#else
struct Vec {
  float lane[8];
};
constexpr int kVec = 8, kTileRows = 4, kTileVecs = 1;
inline Vec splat_vec(float x) {
  Vec v;
  for (int i = 0; i < kVec; ++i) v.lane[i] = x;
  return v;
}
inline Vec zero_vec() { return splat_vec(0.0f); }
template <typename T>
inline Vec load_vec(const T *p) {
  Vec v;
  for (int i = 0; i < kVec; ++i) v.lane[i] = load(p, i);
  return v;
}
inline void store_vec(float *p, Vec x) { memcpy(p, x.lane, sizeof x.lane); }
inline Vec fused(Vec a, Vec b, Vec c) {
  for (int i = 0; i < kVec; ++i) c.lane[i] = std::fmaf(a.lane[i], b.lane[i], c.lane[i]);
  return c;
}
#endif

constexpr int kTileCols = kTileVecs * kVec, kTile = kTileRows * kTileCols;

// tile[i][j] (+)= sum over t of left[t][i] right[t][j]; tile [kTileRows][kTileCols], left [steps][kTileRows], right
// [steps][kTileCols], all packed.
inline void multiply_tile(const float *left, const float *right, int64_t steps, bool first, float *tile) {
  Vec sum[kTileRows][kTileVecs];
  PRIVKT_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    PRIVKT_UNROLL
    for (int v = 0; v < kTileVecs; ++v) sum[i][v] = first ? zero_vec() : load_vec(tile + i * kTileCols + v * kVec);
  }
  for (int64_t t = 0; t < steps; ++t) {
    Vec r[kTileVecs];
    PRIVKT_UNROLL
    for (int v = 0; v < kTileVecs; ++v) r[v] = load_vec(right + t * kTileCols + v * kVec);
    PRIVKT_UNROLL
    for (int i = 0; i < kTileRows; ++i) {
      const Vec l = splat_vec(left[t * kTileRows + i]);
      PRIVKT_UNROLL
      for (int v = 0; v < kTileVecs; ++v) sum[i][v] = fused(l, r[v], sum[i][v]);
    }
  }
  PRIVKT_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    PRIVKT_UNROLL
    for (int v = 0; v < kTileVecs; ++v) store_vec(tile + i * kTileCols + v * kVec, sum[i][v]);
  }
}

// Panels of `panel` columns, each [steps][panel] float32, the last filled up with zeros; bfloat16 widens exactly.
template <int panel, typename T>
inline void pack_panels(const T *from, int64_t stride, int64_t steps, int64_t columns, float *to) {
  for (int64_t t = 0; t < steps; ++t) {
    const T *row = from + t * stride;
    float *at = to + t * panel;
    int64_t j = 0;
    for (; j + panel <= columns; j += panel, at += steps * panel) {
      for (int c = 0; c < panel; ++c) at[c] = load(row, j + c);
    }
    if (j < columns) {
      for (int c = 0; c < panel; ++c) at[c] = j + c < columns ? load(row, j + c) : 0.0f;
    }
  }
}

template <int panel>
inline void pack(const Sequence &x, int64_t sample, int64_t step, int64_t steps, int64_t column, int64_t columns, float *to) {
  const int64_t at = sample * x.sample_stride + step * x.step_stride + column;
  if (x.element == Element::bfloat16) {
    pack_panels<panel>(static_cast<const uint16_t *>(x.data) + at, x.step_stride, steps, columns, to);
  } else {
    pack_panels<panel>(static_cast<const float *>(x.data) + at, x.step_stride, steps, columns, to);
  }
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// Doubles and 64-bit words side by side, as wide as the instruction set: what the noise's quick path is written in.
//
// Everything is in an unnamed namespace or `static`: see portable.h on inline code and instruction sets.
#pragma once

#include "isa.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace privkt::PRIVKT_ISA {

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 8;
#elif defined(__AVX2__)
constexpr int kWidth = 4;
#elif defined(__GNUC__)
constexpr int kWidth = 2;
#else
constexpr int kWidth = 1;
#endif

#if defined(__GNUC__)
typedef double Reals __attribute__((vector_size(8 * kWidth)));
typedef uint64_t Words __attribute__((vector_size(8 * kWidth)));
typedef float Floats __attribute__((vector_size(4 * kWidth)));
static inline Words bits_of(Reals x) { return (Words)x; }
static inline Reals reals_of(Words b) { return (Reals)b; }
static inline Reals splat(double x) { return Reals{} + x; }
static inline Floats narrow(Reals x) { return __builtin_convertvector(x, Floats); }  // to the nearest
static inline Reals widen(Floats x) { return __builtin_convertvector(x, Reals); }
#else
using Reals = double;
using Words = uint64_t;
using Floats = float;
static inline Reals reals_of(Words b) { return double_of(b); }
static inline Reals splat(double x) { return x; }
static inline Floats narrow(Reals x) { return float(x); }
static inline Reals widen(Floats x) { return x; }
#endif

template <typename Vector>
static inline Vector load_vector(const void *from) {
  Vector v;
  memcpy(&v, from, sizeof v);
  return v;
}

template <typename Vector>
static inline void store_vector(void *to, Vector v) {
  memcpy(to, &v, sizeof v);
}

static inline Reals absolute(Reals x) { return reals_of(bits_of(x) & 0x7fffffffffffffffu); }

// a b + c, rounded once or twice: whoever uses it has a bound that covers both.
static inline Reals fused(Reals a, Reals b, Reals c) {
#if defined(__AVX512F__)
  return (Reals)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (Reals)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

static inline Reals square_roots(Reals x) {
#if defined(__AVX512F__)
  return (Reals)_mm512_sqrt_pd((__m512d)x);
#elif defined(__AVX2__)
  return (Reals)_mm256_sqrt_pd((__m256d)x);
#else
  double each[kWidth];
  store_vector(each, x);
  for (double &y : each) y = sqrt(y);
  return load_vector<Reals>(each);
#endif
}

// Nearest doubles. Both halves fill the mantissa of a power of two; the sum is rounded once.
static inline Reals from_words(Words n) {
#if defined(__AVX512DQ__)
  return (Reals)_mm512_cvtepu64_pd((__m512i)n);
#else
  const Reals high = reals_of((n >> 32) | 0x4530000000000000u) - 0x1.00000001p84;
  return high + reals_of((n & 0xffffffffu) | 0x4330000000000000u);
#endif
}

// Below 2^52, exactly.
static inline Reals from_small_words(Words n, double minus = 0.0) { return reals_of(n | 0x4330000000000000u) - (0x1p52 + minus); }

// table[index] for 16 entries.
static inline Reals looked_up(const double *table, Words index) {
#if defined(__AVX512F__)
  return (Reals)_mm512_permutex2var_pd(_mm512_loadu_pd(table), (__m512i)index, _mm512_loadu_pd(table + 8));  // low 4 bits
#elif defined(__AVX2__)
  return (Reals)_mm256_i64gather_pd(table, (__m256i)(index & 15), 8);
#else
  uint64_t at[kWidth];
  double each[kWidth];
  store_vector(at, index);
  for (int i = 0; i < kWidth; ++i) each[i] = table[at[i] & 15];
  return load_vector<Reals>(each);
#endif
}

// Bit i is set where x[i] != y[i], or one of them is NaN.
static inline unsigned differing(Floats x, Floats y) {
#if defined(__AVX512F__)
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, (__m256)y, _CMP_NEQ_UQ)));
#elif defined(__AVX2__)
  return unsigned(_mm_movemask_ps(_mm_cmpneq_ps((__m128)x, (__m128)y)));
#else
  float a[kWidth], b[kWidth];
  store_vector(a, x);
  store_vector(b, y);
  unsigned found = 0;
  for (int i = 0; i < kWidth; ++i) found |= unsigned(!(a[i] == b[i])) << i;
  return found;
#endif
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// The discrete Gaussian on the integers, exactly: P(x) proportional to exp(-x^2 / (2 sigma^2)) for every integer x.
//
// C. Canonne, G. Kamath, T. Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, Algorithms 1 to 3,
// with nothing but integers: a probability a/b is decided by comparing a uniform real number, of which ChaCha20 gives
// 32 binary places at a time, with a/b, until they differ. docs/proofs/discrete_gaussian.md has the argument.
//
// A coordinate's words are its own: word n of coordinate i is word n % 16 of block kDiscreteBlock + (n / 16 << 46) + i.
// Gaussian noise (gaussian.h) uses blocks below 2^61 and from 2^63 on, so that no block of one stream is ever of another.
#pragma once

#include "privkt/chacha20.h"

namespace privkt {

constexpr uint64_t kDiscreteBlock = uint64_t(1) << 62;
constexpr int kCoordinateBits = 46;  // 2^16 blocks a coordinate: with probability below 2^-1000 they do not suffice

// `prepared` blocks of a coordinate lie in memory, word w of block b at words[b * block_stride + w * word_stride]; later ones
// are computed when they are needed.
struct WordStream {
  const uint32_t *key;
  uint64_t step, coordinate;
  const uint32_t *words;
  int block_stride, word_stride, prepared;
  int used;
  uint32_t block[16];
};

PRIVKT_FN uint32_t next_word(WordStream &stream) {
  const int number = stream.used / 16, word = stream.used % 16;
  ++stream.used;
  if (number < stream.prepared) return stream.words[number * stream.block_stride + word * stream.word_stride];
  if (word == 0) {
    const uint64_t index = kDiscreteBlock | (uint64_t(number) & 0xffff) << kCoordinateBits | stream.coordinate;
    chacha20_block_at(stream.key, index, stream.step, stream.block);
  }
  return stream.block[word];
}

// An integer below 2^(32 n), in n digits of 32 bits, the lowest first.
template <int n>
struct Digits {
  uint32_t digit[n];
};

template <int n>
PRIVKT_FN Digits<n> digits_of(uint64_t x) {
  Digits<n> d = {};
  d.digit[0] = uint32_t(x);
  d.digit[1] = uint32_t(x >> 32);
  return d;
}

template <int n>
PRIVKT_FN int compare(const Digits<n> &a, const Digits<n> &b) {
  for (int i = n - 1; i >= 0; --i) {
    if (a.digit[i] != b.digit[i]) return a.digit[i] < b.digit[i] ? -1 : 1;
  }
  return 0;
}

template <int n>
PRIVKT_FN Digits<n> minus(const Digits<n> &a, const Digits<n> &b) {  // a >= b
  Digits<n> d;
  uint64_t borrow = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t x = uint64_t(a.digit[i]) - b.digit[i] - borrow;
    d.digit[i] = uint32_t(x);
    borrow = x >> 63;
  }
  return d;
}

template <int n, int m, int k>
PRIVKT_FN Digits<n> product(const Digits<m> &a, const Digits<k> &b) {  // which must fit
  Digits<n> d = {};
  for (int i = 0; i < m && i < n; ++i) {
    uint64_t carry = 0;
    for (int j = 0; i + j < n; ++j) {
      const uint64_t x = d.digit[i + j] + carry + (j < k ? uint64_t(a.digit[i]) * b.digit[j] : 0);
      d.digit[i + j] = uint32_t(x);
      carry = x >> 32;
    }
  }
  return d;
}

template <int n>
PRIVKT_FN Digits<n> product(const Digits<n> &a, uint32_t b) {
  Digits<n> d;
  uint64_t carry = 0;
  for (int i = 0; i < n; ++i) {
    const uint64_t x = uint64_t(a.digit[i]) * b + carry;
    d.digit[i] = uint32_t(x);
    carry = x >> 32;
  }
  return d;
}

// True with probability a/b, b > 0. Both below 2^(32 (n - 1)).
template <int n>
PRIVKT_FN bool bernoulli(Digits<n> a, const Digits<n> &b, WordStream &stream) {
  const Digits<n> zero = {};
  if (compare(a, b) >= 0) return true;
  while (compare(a, zero) != 0) {
    for (int i = n - 1; i > 0; --i) a.digit[i] = a.digit[i - 1];  // 2^32 a/b is the next digit of a/b and a rest
    a.digit[0] = 0;
    const Digits<n> drawn = product(b, next_word(stream));
    if (compare(a, drawn) <= 0) return false;
    a = minus(a, drawn);
    if (compare(a, b) >= 0) return true;
  }
  return false;
}

// True with probability exp(-a/b), 0 <= a <= b (Algorithm 1): k rounds are played with probability at most 1/(k - 1)!.
template <int n>
PRIVKT_FN bool bernoulli_exp(const Digits<n> &a, const Digits<n> &b, WordStream &stream) {
  uint32_t k = 1;
  while (bernoulli(a, product(b, k), stream)) ++k;
  return k % 2 == 1;
}

PRIVKT_FN bool bernoulli_exp_of_1(WordStream &stream) {
  const Digits<2> one = digits_of<2>(1);
  return bernoulli_exp(one, one, stream);
}

// Uniform below t <= 2^41: D. Lemire, ACM Trans. Model. Comput. Simul. 29, 2019. The product of a 64-bit word and t, in high
// and low words; a low word below 2^64 mod t is drawn again.
PRIVKT_FN uint64_t below(uint64_t t, WordStream &stream) {
  while (true) {
    const uint64_t low = next_word(stream), word = low | uint64_t(next_word(stream)) << 32;
    const Digits<4> all = product<4>(digits_of<2>(word), digits_of<2>(t));
    const uint64_t rest = all.digit[0] | uint64_t(all.digit[1]) << 32;
    if (rest >= t || rest >= (uint64_t(0) - t) % t) return all.digit[2] | uint64_t(all.digit[3]) << 32;
  }
}

// sigma = numerator / 2^shift with a numerator below 2^32, or shift 0: 2^-6 <= sigma <= 2^40.
struct DiscreteGaussian {
  uint64_t t;               // floor(sigma) + 1
  Digits<4> t_cells;        // t 4^shift
  Digits<4> square;         // numerator^2
  Digits<7> twice_square;   // 2 (numerator t 2^shift)^2
};

PRIVKT_FN DiscreteGaussian discrete_gaussian_of(double sigma) {
  int shift = 0;
  while (sigma * double(uint64_t(1) << shift) != floor(sigma * double(uint64_t(1) << shift))) ++shift;
  const uint64_t unit = uint64_t(1) << shift, numerator = uint64_t(sigma * double(unit));
  DiscreteGaussian d;
  d.t = uint64_t(floor(sigma)) + 1;
  d.t_cells = product<4>(product<4>(digits_of<2>(d.t), digits_of<2>(unit)), digits_of<2>(unit));
  d.square = product<4>(digits_of<2>(numerator), digits_of<2>(numerator));
  const Digits<4> side = product<4>(product<4>(digits_of<2>(numerator), digits_of<2>(d.t)), digits_of<2>(unit));
  d.twice_square = product(product<7>(side, side), 2u);
  return d;
}

// Algorithm 3 on Algorithm 2 with scale t. |x| stays below 2^16 t but with probability exp(-65535).
PRIVKT_FN int64_t draw(const DiscreteGaussian &d, WordStream &stream) {
  const Digits<3> t = digits_of<3>(d.t);
  while (true) {
    const uint64_t u = below(d.t, stream);
    if (!bernoulli_exp(digits_of<3>(u), t, stream)) continue;
    uint64_t v = 0;
    while (bernoulli_exp_of_1(stream)) ++v;
    const bool negative = (next_word(stream) & 1) != 0;
    const uint64_t magnitude = u + d.t * v;
    if (negative && magnitude == 0) continue;  // or zero would count twice
    // gamma = (magnitude - sigma^2 / t)^2 / (2 sigma^2) = distance^2 / twice_square
    const Digits<4> at = product<4>(digits_of<2>(magnitude), d.t_cells);
    const Digits<4> distance = compare(at, d.square) >= 0 ? minus(at, d.square) : minus(d.square, at);
    Digits<7> gamma = product<7>(distance, distance);
    bool accepted = true;
    while (accepted && compare(gamma, d.twice_square) >= 0) {
      accepted = bernoulli_exp_of_1(stream);
      gamma = minus(gamma, d.twice_square);
    }
    if (accepted && bernoulli_exp(gamma, d.twice_square, stream)) return negative ? -int64_t(magnitude) : int64_t(magnitude);
  }
}

}  // namespace privkt

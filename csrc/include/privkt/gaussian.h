// Gaussian noise, correctly rounded: float32(base + sigma z) for a real normal z, not for a double near it.
//
// Box-Muller turns two uniforms into two normals: r = sqrt(-2 ln u), z = r cos(2 pi v), r sin(2 pi v). A normal computed in
// floating point has holes and heaps that tell sums apart (I. Mironov, CCS 2012), and no bound on its total variation
// from the real normal better than about 2^-27 can be proven from double arithmetic alone. So, as in correctly rounded
// elementary functions (Ziv 1991), a fast value with a proven error is used only where every real number within that
// error rounds to the same float32; elsewhere (about 3 in 10^6) the uniforms are read to 128 bits instead of 64 and
// everything is computed in double-double. On the CPU a quick path of less precision comes before the fast one, which is
// then asked for 3 in 10^4. What comes out is the rounding of an exact Gaussian mechanism, hence
// post-processing of it, except with the probability bounded at kUndecided.
//
// Since the right rounding is unique, every processor, instruction set and compiler gives the same bits.
#pragma once

#include "privkt/chacha20.h"
#include "privkt/double_double.h"

namespace privkt {

// Uniforms: u = (k + 1/2) / 2^64 and v = j / 2^64 from the block's words; the extension block's words at the same places
// continue both to 128 bits. Coordinate i is the i%2-th normal of pair (i/2)%4 in block i/8.
constexpr int kNormalsPerBlock = 8;

// Error of the fast path, where 2^44 <= k < 2^64 - 2^44, so r < 5.27: at most kFastError |z| + kFastFloor. L = -ln u is
// correct to 2^-49 (8 roundings; no cancellation: e ln 2 <= 2 L) and to the unknown lower bits of u, which next to
// 1 - 2^-20 are 2^-45 of it and less elsewhere: r to 2^-45.8. cos and sin are correct to 2^-49 of themselves, but for
// the unknown lower bits of v, which move z by less than r 2^-61.
constexpr double kFastError = 0x1p-45;
constexpr double kFastFloor = 0x1p-58;

// Error of the CPU's vectorised path, in the same form (csrc/cpu/quick_normals.h).
constexpr double kQuickError = 0x1p-36;
constexpr double kQuickFloor = 0x1p-49;

constexpr double kSumError = 0x1p-51;  // of base + sigma z, relative: two roundings, and the bounds' own

// Exact path: error of z below E = 2^-95 (r < 13.5): with v = 2^-106, a logarithm off by 15 v + 7 v L moves r by at most 89 v,
// a series by 25 v, so z by 89 v + 13.5 * 25 v + 5 |z| v < 2^-97; 2^-101 is the worst that was measured. Bits beyond the
// 128 move z by less than 2^-97 where 2^-34 < u < 1 - 2^-60; every octave outside is rarer by as much as z moves more,
// which leaves 2^-90 in all. Per binade of the result there are 2^23 rounding boundaries on each side of zero, each hit with
// probability at most 2 E / sqrt(2 pi): 2^-71.3 a binade, over at most 5 binades above sigma and the 70 below, after which
// 2^-70.3 is left: 2^-65.07 in all. The roundings of base + sigma z add less than 2^-73 while |base| <= 2^30 sigma. Stated:
// 2^-64. But for the 2^-90, "undecided" says where the exact sum lies (within E sigma + 2^-104 of itself of a boundary): a
// set of real numbers that sigma fixes and the base does not, which is why it costs delta once (docs/proofs/dpsgd.md).
constexpr double kUndecided = 0x1p-64;

struct Uniforms {
  uint64_t radius, angle;
};

PRIVKT_FN Uniforms uniforms_of(const uint32_t block[16], int pair) {
  const uint32_t *w = block + 4 * pair;
  return {w[0] | uint64_t(w[1]) << 32, w[2] | uint64_t(w[3]) << 32};
}

// Exact below 2^52: fills the mantissa of 2^52. Vectorises everywhere, unlike a 64-bit conversion.
PRIVKT_FN double small_to_double(uint64_t n) { return double_of(n | 0x4330000000000000u) - 0x1p52; }

struct FastPair {
  double first, second;
  bool in_range;
};

PRIVKT_FN FastPair fast_normals(uint64_t k, uint64_t j) {
  // u near 1 is kept as 1 - u, which has all its bits; the rest as m 2^-e with m in [sqrt(1/2), sqrt(2)).
  const bool near_one = k >= 0xB504F33400000000u;
  const uint64_t n = near_one ? ~k : k;
  const double d = small_to_double(n >> 32) * 0x1p32 + (small_to_double(n & 0xffffffffu) + 0.5);
  const uint64_t b = bits_of(d);
  const double mantissa = double_of((b & 0x000fffffffffffffu) | 0x3ff0000000000000u);  // [1, 2)
  const bool halve = mantissa > 0x1.6a09e667f3bcdp0;
  const double m = halve ? 0.5 * mantissa : mantissa;
  const double exponent = near_one ? 0.0 : 1087.0 - small_to_double((b >> 52) + (halve ? 1 : 0));  // u = m 2^-exponent
  const double m_minus_1 = near_one ? d * -0x1p-64 : m - 1.0;
  const double t = m_minus_1 / (2.0 + m_minus_1), t2 = t * t;
  double p = 1.0 / 23;  // ln m = 2 atanh t, |t| <= 0.1716: the term left out is below 2^-63 of the sum
  p = p * t2 + 1.0 / 21;
  p = p * t2 + 1.0 / 19;
  p = p * t2 + 1.0 / 17;
  p = p * t2 + 1.0 / 15;
  p = p * t2 + 1.0 / 13;
  p = p * t2 + 1.0 / 11;
  p = p * t2 + 1.0 / 9;
  p = p * t2 + 1.0 / 7;
  p = p * t2 + 1.0 / 5;
  p = p * t2 + 1.0 / 3;
  p = p * t2 + 1.0;
  const double r = sqrt(2.0 * (exponent * 0x1.62e42fefa39efp-1 - 2.0 * t * p));

  // 2 pi v = quadrant pi/2 + x with x in [-pi/4, pi/4).
  const uint64_t shifted = j + (uint64_t(1) << 61), quadrant = shifted >> 62, rest = shifted & 0x3fffffffffffffffu;
  const double x = (small_to_double(rest >> 32) * 0x1p32 - 0x1p61 + small_to_double(rest & 0xffffffffu)) * 0x1.921fb54442d18p-62;
  const double x2 = x * x;
  double s = 1.0 / 355687428096000, c = 1.0 / 20922789888000;  // 1/17!, 1/16!: Taylor, remainders below 2^-58
  s = s * x2 - 1.0 / 1307674368000;
  c = c * x2 - 1.0 / 87178291200;
  s = s * x2 + 1.0 / 6227020800;
  c = c * x2 + 1.0 / 479001600;
  s = s * x2 - 1.0 / 39916800;
  c = c * x2 - 1.0 / 3628800;
  s = s * x2 + 1.0 / 362880;
  c = c * x2 + 1.0 / 40320;
  s = s * x2 - 1.0 / 5040;
  c = c * x2 - 1.0 / 720;
  s = s * x2 + 1.0 / 120;
  c = c * x2 + 1.0 / 24;
  s = s * x2 - 1.0 / 6;
  c = c * x2 - 1.0 / 2;
  const double sine = x + x * (x2 * s), cosine = 1.0 + x2 * c;
  const bool odd = (quadrant & 1) != 0;
  const double one = odd ? sine : cosine, two = odd ? cosine : sine;
  const double first = (quadrant == 1 || quadrant == 2) ? -one : one, second = quadrant >= 2 ? -two : two;
  return {r * first, r * second, n >= (uint64_t(1) << 44)};
}

// float32(base + sigma z) where the fast path can tell it.
PRIVKT_FN bool fast_noise(FastPair pair, int which, double base, double sigma, float *value) {
  const double scaled = sigma * (which == 0 ? pair.first : pair.second), t = base + scaled;
  const double error = fabs(scaled) * kFastError + (fabs(t) * kSumError + sigma * kFastFloor);
  const float low = float(t - error), high = float(t + error);
  *value = high;
  return pair.in_range && low == high;
}

// The same from 128-bit uniforms in double-double; `which` is 0 for the cosine, 1 for the sine.
PRIVKT_SLOW_FN dd exact_normal(Uniforms high, Uniforms low, int which) {
  const bool near_one = high.radius >= 0xB504F33400000000u;
  const dd n = near_one ? from_integer(~high.radius, ~low.radius) : from_integer(high.radius, low.radius);
  int e = 0;
  dd m_minus_1;
  if (near_one) {
    m_minus_1 = scale(n, -0x1p-128);
  } else {
    int binary;
    const double mantissa = frexp(n.hi, &binary);  // [1/2, 1)
    e = 128 - binary;
    const double up = mantissa < 0x1.6a09e667f3bcdp-1 ? 2.0 : 1.0;
    e += up == 2.0;
    m_minus_1 = add(scale(scale(n, ldexp(1.0, -binary)), up), -1.0);
  }
  const dd t = divide(m_minus_1, add(m_minus_1, 2.0)), t2 = multiply(t, t);
  dd p = {0.0, 0.0};
  for (int k = 47; k >= 1; k -= 2) p = add(multiply(p, t2), divide(dd{1.0, 0.0}, dd{double(k), 0.0}));
  const dd ln2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
  const dd r = square_root(scale(add(multiply(ln2, double(e)), negate(scale(multiply(t, p), 2.0))), 2.0));

  const uint64_t shifted = high.angle + (uint64_t(1) << 61), quadrant = shifted >> 62;
  const dd pi_over_2 = {0x1.921fb54442d18p0, 0x1.1a62633145c07p-54};
  const dd turn = add(from_integer(shifted & 0x3fffffffffffffffu, low.angle), -0x1p125);
  const dd x = multiply(scale(turn, 0x1p-126), pi_over_2), x2 = multiply(x, x);
  const bool cosine = (quadrant & 1) == uint64_t(which);
  dd series = {1.0, 0.0};  // 1 - x^2/(a (a+1)) (1 - x^2/((a+2) (a+3)) (1 - ...)), a = 1 for the cosine, 2 for the sine
  for (int a = cosine ? 29 : 30; a >= 1; a -= 2) {
    series = add(negate(divide(multiply(series, x2), dd{double(a) * (a + 1), 0.0})), 1.0);
  }
  const dd trig = cosine ? series : multiply(x, series);
  const bool minus = which == 0 ? (quadrant == 1 || quadrant == 2) : quadrant >= 2;
  const dd z = multiply(r, trig);
  return minus ? negate(z) : z;
}

// float32(base + sigma z) for coordinate `index`, from its two blocks.
PRIVKT_SLOW_FN float exact_noise(const uint32_t key[8], uint64_t step, uint64_t index, double base, double sigma) {
  uint32_t high[16], low[16];
  const uint64_t block = index / kNormalsPerBlock;
  chacha20_block_at(key, block, step, high);
  chacha20_block_at(key, block | kExtensionBlock, step, low);
  const int pair = int(index / 2 % 4);
  const dd z = exact_normal(uniforms_of(high, pair), uniforms_of(low, pair), int(index % 2));
  return round_to_float(add(multiply(z, sigma), base));
}

}  // namespace privkt

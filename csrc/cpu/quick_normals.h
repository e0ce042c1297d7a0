// Box-Muller in vectors, just precise enough to decide the rounding to float32 of nearly every normal.
//
// Error: |z - exact z| <= kQuickError |z| + kQuickFloor for every exact normal whose uniforms begin with the given 64
// bits, where 2^-20 <= u <= 1 - 2^-14; NaN elsewhere. Three in 10^4 normals are left to fast_normals (gaussian.h), so a
// shorter polynomial would cost more there than it saves here.
//
// The radius. d is u 2^64 to 2^-53. With u = m 2^e, m in [1, 2), L = -2 ln u = -2 ln 2 e - 2 ln c - 2 ln(1 + f), where
// f = m/c - 1 and |f| <= 1/32 for the c of m's sixteenth. In the last of them c = 2, so that next to u = 1 (e = -1) the
// first two terms cancel exactly and f is exact: what is left is f P(f), relatively precise. Relative errors of L:
// the polynomial 2^-37.7; u itself 2^-53 / 2^-14 = 2^-39 at most, its half cell and lower bits 2^-45; roundings of terms
// below 30 next to L >= 0.06 elsewhere 2^-44. Together below 2^-37.2, half of that in r = sqrt(L) < 5.27: 2^-38.2.
//
// The angle. w in [-1/2, 1/2) quarter turns, sin = w S(w^2) to 2^-37.6 relatively, cos = C(w^2) to 2^-43.5; roundings
// below 2^-49; where w has only 52 bits, 2^-53 quarter turns move z by r 2^-52.3 < 2^-49.9. Together below
// 2^-38.2 + 2^-37.6 + 2^-48 < 2^-36.85 relatively.
#pragma once

#include "privkt/gaussian.h"
#include "vectors.h"

namespace privkt::PRIVKT_ISA {

namespace {

// 1/c and 2 ln(1/c), each to half a unit of its last place.
constexpr double kInverse[16] = {0x1.f08p-1, 0x1.d4p-1,  0x1.bbp-1,  0x1.a4p-1, 0x1.8f8p-1, 0x1.7dp-1,
                                 0x1.6cp-1,  0x1.5c8p-1, 0x1.4e8p-1, 0x1.418p-1, 0x1.35p-1, 0x1.2ap-1,
                                 0x1.1f8p-1, 0x1.158p-1, 0x1.0c8p-1, 0x1p-1};
constexpr double kTwiceLog[16] = {-0x1.f7a9b16782856p-5, -0x1.700d30aeac0e1p-3, -0x1.28753bc11aba5p-2, -0x1.95a5adcf7017fp-2,
                                  -0x1.fc218be620a5ep-2, -0x1.2e9e2bce12286p-1, -0x1.5d5bddf595f30p-1, -0x1.89eb3af432874p-1,
                                  -0x1.b3e77d046d727p-1, -0x1.dc7eb3d1919ebp-1, -0x1.028d2d6a963f4p+0, -0x1.151c3f6f29612p+0,
                                  -0x1.2779e1ec93ecap+0, -0x1.399a157a603e7p+0, -0x1.4a7b87bf1fa82p+0, -0x1.62e42fefa39efp+0};

// One unit of the integer that stands for w, in quarter turns.
#if defined(__AVX512DQ__)
constexpr double kTurn = 0x1p-64;
#else
constexpr double kTurn = 0x1p-52;
#endif

static inline Reals quarter_turns(Words j) {
#if defined(__AVX512DQ__)
  return (Reals)_mm512_cvtepi64_pd((__m512i)(j << 2));
#else
  // The sign bit of 52 flipped, then taken off; the bits below are cut off, and the middle of what they may be stands for them.
  return reals_of(((j << 2) >> 12) ^ 0x4338000000000000u) - 0x1.8p52 + 0.5;
#endif
}

struct QuickNormals {
  Reals first, second;
};

static inline QuickNormals quick_pair(Words k, Words j) {
  const Reals d = from_words(k);
  const Words b = bits_of(d);
  const Reals e = from_small_words(b >> 52, 1087.0);
  const Reals m = reals_of((b & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  const Words sixteenth = b >> 48;
  const Reals f = fused(m, looked_up(kInverse, sixteenth), splat(-1.0));
  // -2 ln(1 + f) / f on [-1/32, 1/32]
  Reals p = fused(splat(0x1.55b56af38539ap-2), f, splat(-0x1.9a07687a0858bp-2));
  p = fused(p, f, splat(0x1.fffff6fd65cc4p-2));
  p = fused(p, f, splat(-0x1.5555502f50f10p-1));
  p = fused(p, f, splat(0x1.0000000008026p+0));
  p = fused(p, f, splat(-0x1.000000000493ap+1));
  const Reals l = fused(f, p, fused(e, splat(-0x1.62e42fefa39efp+0), looked_up(kTwiceLog, sixteenth)));
  const Reals r = square_roots(((d >= 0x1p44) & (d <= 0x1p64 - 0x1p50)) ? l : splat(NAN));

  const Reals w = quarter_turns(j), y = w * w;
  constexpr double y1 = kTurn * kTurn, y2 = y1 * y1, y3 = y2 * y1, y4 = y2 * y2, y5 = y3 * y2;
  Reals s = fused(splat(0x1.4bc85ccb213adp-13 * y4), y, splat(-0x1.32ca9d79fc665p-8 * y3));
  Reals c = fused(splat(-0x1.a0ee132c60c1fp-16 * y5), y, splat(0x1.e1e7ccccb387ap-11 * y4));
  s = fused(s, y, splat(0x1.466bbac8a54e8p-4 * y2));
  c = fused(c, y, splat(-0x1.55d3ba300cd50p-6 * y3));
  s = fused(s, y, splat(-0x1.4abbce56ae6e6p-1 * y1));
  c = fused(c, y, splat(0x1.03c1f074ded21p-2 * y2));
  s = fused(s, y, splat(0x1.921fb5443b587p+0));
  c = fused(c, y, splat(-0x1.3bd3cc9bd2c35p+0 * y1));
  s = s * w * kTurn;
  c = fused(c, y, splat(0x1.ffffffffffe0bp-1));

  const Words shifted = j + (uint64_t(1) << 61);  // its top two bits are the quadrant
  const auto odd = (shifted & (uint64_t(1) << 62)) != 0;
  const Words minus = (shifted + (uint64_t(1) << 62)) & (uint64_t(1) << 63);  // quadrants 1 and 2
  const Reals one = r * (odd ? s : c), two = r * (odd ? c : s);
  return {reals_of(bits_of(one) ^ minus), reals_of(bits_of(two) ^ (shifted & (uint64_t(1) << 63)))};
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// exp, tanh and log for the softmax of logits: few branches, so that the loops around them vectorise, and only operations
// that round alike everywhere, so that every instruction set and the GPU give the same bits.
#pragma once

#include "privkt/portable.h"

namespace privkt {

constexpr float kTiny = -0x1.5d589ep6f;  // ln 2^-126: below it exp is not a normal float32

// exp(x) for x <= 0, within 2^-22 of it relatively; 0 below ln 2^-126; NaN for NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2: ln 2 is split so that n times its first part is exact (9 bits times 7). The
// polynomial is off by 2^-28 of exp(r), the roundings of r, of it and of the last sum by less than 2^-22.5 together.
PRIVKT_FN float exp_not_positive(float x) {
  const float shift = 0x1.8p23f;  // adding it rounds to an integer, which then lies in the low bits
  const float shifted = x * 0x1.715476p0f + shift;
  const float n = shifted - shift;
  const float r = (x - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f;
  float q = 0x1.6db516p-10f;
  q = q * r + 0x1.123c02p-7f;
  q = q * r + 0x1.55545cp-5f;
  q = q * r + 0x1.55548ep-3f;
  q = q * r + 0.5f;
  const float power = float_of((bits_of(shifted) + 127u) << 23);  // 2^n; n >= -126
  const float value = (1.0f + (r + r * r * q)) * power;
  return x < kTiny ? 0.0f : value;
}

// tanh(x), within 2^-22 of it relatively. Odd polynomial near zero, where the quotient of exponentials would cancel.
PRIVKT_FN float bounded_tanh(float x) {
  const float a = fabsf(x), u = x * x;
  float p = -0x1.76abf6p-8f;
  p = p * u + 0x1.5256cep-6f;
  p = p * u - 0x1.b84448p-5f;
  p = p * u + 0x1.110768p-3f;
  p = p * u - 0x1.555534p-2f;
  const float e = exp_not_positive(-2.0f * a);
  const float far = (1.0f - e) / (1.0f + e);
  const float near = x + x * u * p;
  return a < 0.625f ? near : (x < 0.0f ? -far : far);
}

// The model's own map of the logits: y = cap tanh(scale x / cap), or scale x.
template <bool capped>
PRIVKT_FN float mapped(float x, float scale, float cap) {
  const float y = scale * x;
  return capped ? cap * bounded_tanh(y / cap) : y;
}

// dy/dx at a mapped value.
template <bool capped>
PRIVKT_FN float slope(float y, float scale, float cap) {
  const float t = y / cap;
  return capped ? scale * (1.0f - t * t) : scale;
}

// The gradient of the loss at a mapped value: elsewhere than at the label, and at it, where p - 1 = (e - sum) / sum does
// not cancel though p be near 1.
template <bool capped>
PRIVKT_FN float gradient_elsewhere(float y, float maximum, float inverse, float scale, float cap) {
  return exp_not_positive(y - maximum) * inverse * slope<capped>(y, scale, cap);
}

template <bool capped>
PRIVKT_FN float gradient_at_label(float y, float maximum, double sum, float scale, float cap) {
  return float((double(exp_not_positive(y - maximum)) - sum) / sum) * slope<capped>(y, scale, cap);
}

// ln s for s >= 1, within 2^-50 of it relatively, also just above 1; NaN and infinity are handed on.
PRIVKT_FN double log_from_one(double s) {
  if (!(s <= 0x1.fffffffffffffp1023)) return s;
  const uint64_t bits = bits_of(s);
  int exponent = int(bits >> 52) - 1023;
  double m = double_of((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);  // [1, 2)
  if (m > 0x1.6a09e667f3bcdp0) {
    m *= 0.5;
    exponent += 1;
  }
  const double t = (m - 1.0) / (m + 1.0), t2 = t * t;  // ln m = 2 atanh t, |t| <= 0.1716: what is left out is below 2^-63
  double p = 1.0 / 23;
  for (int k = 21; k >= 1; k -= 2) p = p * t2 + 1.0 / k;
  return double(exponent) * 0x1.62e42fefa39efp-1 + 2.0 * t * p;
}

}  // namespace privkt

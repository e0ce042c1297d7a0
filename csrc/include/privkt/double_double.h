// Numbers of about 106 bits as unevaluated sums of two doubles: the arithmetic of the noise's rare exact path.
//
// Error-free transformations after T. J. Dekker (Numerische Mathematik 18, 1971) and the operations of M. Joldes,
// J.-M. Muller, V. Popescu (ACM TOMS 44, 2017): relative errors at most 3 u^2 (sum), 5 u^2 (product), 15 u^2
// (quotient), u = 2^-53. They need round-to-nearest and no contraction, which the build asks for.
#pragma once

#include "privkt/portable.h"

namespace privkt {

struct dd {
  double hi, lo;
};

PRIVKT_FN dd fast_two_sum(double a, double b) {  // needs |a| >= |b| or a == 0
  const double s = a + b;
  return {s, b - (s - a)};
}

PRIVKT_FN dd two_sum(double a, double b) {
  const double s = a + b, v = s - a;
  return {s, (a - (s - v)) + (b - v)};
}

PRIVKT_FN dd two_product(double a, double b) {
  const double p = a * b;
  return {p, fma(a, b, -p)};
}

PRIVKT_FN dd add(dd x, dd y) {
  const dd s = two_sum(x.hi, y.hi), t = two_sum(x.lo, y.lo);
  const dd v = fast_two_sum(s.hi, s.lo + t.hi);
  return fast_two_sum(v.hi, t.lo + v.lo);
}

PRIVKT_FN dd add(dd x, double y) {
  const dd s = two_sum(x.hi, y);
  return fast_two_sum(s.hi, x.lo + s.lo);
}

PRIVKT_FN dd negate(dd x) { return {-x.hi, -x.lo}; }

PRIVKT_FN dd multiply(dd x, dd y) {
  const dd p = two_product(x.hi, y.hi);
  return fast_two_sum(p.hi, p.lo + (x.hi * y.lo + x.lo * y.hi));
}

PRIVKT_FN dd multiply(dd x, double y) {
  const dd p = two_product(x.hi, y);
  return fast_two_sum(p.hi, fma(x.lo, y, p.lo));
}

PRIVKT_FN dd divide(dd x, dd y) {
  const double q = x.hi / y.hi;
  const dd r = add(x, negate(multiply(y, q)));
  const double q2 = r.hi / y.hi;
  const dd r2 = add(r, negate(multiply(y, q2)));
  return add(fast_two_sum(q, q2), r2.hi / y.hi);
}

PRIVKT_FN dd square_root(dd x) {  // one Newton step from the correctly rounded root of the head
  if (x.hi <= 0) return {0.0, 0.0};
  const double r = sqrt(x.hi);
  const dd rest = add(x, negate(two_product(r, r)));
  return fast_two_sum(r, rest.hi / (2 * r));
}

PRIVKT_FN dd scale(dd x, double power_of_two) { return {x.hi * power_of_two, x.lo * power_of_two}; }

// The 128-bit integer hi * 2^64 + lo plus one half; relative error 2^-104.
PRIVKT_FN dd from_integer(uint64_t hi, uint64_t lo) {
  dd x = {double(uint32_t(hi >> 32)) * 0x1p96, 0.0};
  x = add(x, double(uint32_t(hi)) * 0x1p64);
  x = add(x, double(uint32_t(lo >> 32)) * 0x1p32);
  return add(x, double(uint32_t(lo)) + 0.5);
}

// The float32 nearest to hi + lo. Rounding the head alone would round twice; rounding it to odd first does not
// (S. Boldo, G. Melquiond, IEEE Trans. Computers 57, 2008).
PRIVKT_FN float round_to_float(dd x) {
  if (x.lo == 0) return float(x.hi);
  uint64_t b = bits_of(x.hi);
  if ((x.lo < 0) != (x.hi < 0)) --b;  // the exact value lies below |hi|: step towards zero
  return float(double_of(b | 1));
}

}  // namespace privkt

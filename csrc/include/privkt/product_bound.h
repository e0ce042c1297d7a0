// An upper bound of |R|^2 from Gram entries, R the float32 row that the sums use.
//
// l_t and r_t are the steps' vectors, M = sum_t l_t r_t^T exactly, R its entries by fused multiply-adds over t ascending, in
// float32. u = 2^-24, gamma(n) = n u / (1 - n u) (N. Higham, Accuracy and Stability, 3.1). An operation whose result is
// below the normal range errs by at most 2^-150 instead of relatively. Write lambda_t = |l_t|, rho_t = |r_t| (Euclidean),
// a = sum_t lambda_t rho_t, and A = sum_t |l_t| |r_t|^T by entries: |A|_F <= a, since |l_t| |r_t|^T has norm lambda_t rho_t.
//
// 1. R. Each of an entry's T operations errs by u of its result or 2^-150, so |R - M| <= gamma(T) A + T 2^-150 (1 + gamma(T))
//    by entries, and |R|_F <= |M|_F + gamma(T) a + T 2^-149 sqrt(p d) while gamma(T) <= 1. Finite: the partial sums of an entry
//    are at most (1 + gamma(T)) a + T 2^-149, so below 2^127 for a < 2^126 none overflows; a bound for larger a is infinite.
// 2. Gram entries. |M|_F^2 = sum over t, t' of <l_t, l_t'> <r_t, r_t'>. A float32 dot product in 16 lanes passes each element
//    through at most n = ceil(p / 16) + 4 roundings: it errs by at most g lambda_t lambda_t' + e, g = gamma(n),
//    e = (p + 16) 2^-149. With g_l, e_l, g_r, e_r for the two sides, the product of two computed entries errs by at most
//      (g_l + g_r + g_l g_r) lambda_t rho_t lambda_t' rho_t' + e_l (1 + g_r) rho_t rho_t' + e_r (1 + g_l) lambda_t lambda_t' + e_l e_r,
//    and the sum over t, t' of that is (g_l + g_r + g_l g_r) a^2 + e_l (1 + g_r) (sum rho)^2 + e_r (1 + g_l) (sum lambda)^2 + T^2 e_l e_r.
// 3. Float64. Products of two float32 are exact. Adding at most T^2 of them errs by at most T^2 2^-52 times the sum of their
//    sizes, which is at most a^2 (1 + g_l) (1 + g_r) + the terms of 2 with e.
// 4. lambda_t^2 <= (computed <l_t, l_t> + e_l) / (1 - g_l): all its terms have one sign.
// An entry that overflows makes the sum inf or NaN, and the bound infinite: it is never finite where an input is not.
// The bound's own arithmetic rounds fewer than 2 (T + 64) times, relatively by 2^-53 each: the factors 1 + (T + 64) 2^-50.
#pragma once

#include "privkt/portable.h"

namespace privkt {

constexpr int kGramLanes = 16;

PRIVKT_FN double rounding_growth(double operations) {  // gamma, infinite where it is not a bound or above 1
  const double n = operations * 0x1p-24;
  return n < 0.5 ? n / (1.0 - n) * (1.0 + 0x1p-50) : HUGE_VAL;
}

struct GramError {
  double relative, absolute;  // of one computed entry: g and e
};

PRIVKT_FN GramError gram_error(int64_t width) {
  return {rounding_growth(double((width + kGramLanes - 1) / kGramLanes + 4)), double(width + kGramLanes) * 0x1p-149};
}

// At least |x|, from the computed <x, x>.
PRIVKT_FN double norm_above(float gram, GramError error) {
  return sqrt((double(gram) + error.absolute) / (1.0 - error.relative)) * (1.0 + 0x1p-50);
}

struct GramSums {
  double sum;                 // of the products of computed entries, over all pairs of steps
  double sizes, left, right;  // a, sum of lambda, sum of rho, from norm_above
};

PRIVKT_FN double product_sqnorm_bound(GramSums s, int64_t steps, int64_t p, int64_t d) {
  const GramError l = gram_error(p), r = gram_error(d);
  const double pairs = double(steps) * double(steps), growth = rounding_growth(double(steps));
  const double tiny = l.absolute * (1.0 + r.relative) * s.right * s.right + r.absolute * (1.0 + l.relative) * s.left * s.left +
                      pairs * l.absolute * r.absolute;
  const double square = s.sizes * s.sizes, relative = l.relative + r.relative + l.relative * r.relative;
  const double error = relative * square + tiny + pairs * 0x1p-52 * ((1.0 + relative) * square + tiny);
  const double own = 1.0 + (double(steps) + 64.0) * 0x1p-50;
  const double exact = s.sum + error * own;  // at least |M|_F^2, but for this addition's rounding
  const double norm = sqrt(exact < 0.0 ? 0.0 : exact) + growth * s.sizes + double(steps) * 0x1p-149 * sqrt(double(p) * double(d));
  const bool fits = s.sizes < 0x1p126 && fabs(s.sum) <= 0x1.fffffffffffffp1023;
  return fits ? norm * norm * own : HUGE_VAL;
}

}  // namespace privkt

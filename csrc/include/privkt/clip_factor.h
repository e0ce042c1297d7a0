// The largest factor that certainly keeps a stored float32 row inside the ball of radius `max_norm`.
//
// Let S be the float64 sum of the row's squares: each product of two float32 is exact in float64, so the true square norm
// is at most S (1 + width 2^-53 (1 + tiny)) in any order of summation (N. Higham, Accuracy and Stability, 3.1). A stored
// element is y = float32(f x), |y| <= |f x| (1 + 2^-24) + 2^-150, so |y|_2 <= f |x|_2 (1 + 2^-24) + sqrt(width) 2^-150.
// The factor is what makes that at most max_norm, every rounding of its own computation pushed the safe way.
#pragma once

#include "privkt/portable.h"

namespace privkt {

PRIVKT_FN float round_down(double x) {  // to float32, x >= 0 and below 2^127
  const float f = float(x);
  return double(f) > x ? float_of(bits_of(f) - 1) : f;
}

// slack: how much larger than sqrt(S) the true norm may be besides, relative; 0 for norms summed from stored rows.
PRIVKT_FN float clip_factor(double sqnorm, double max_norm, double width, double slack) {
  if (!(sqnorm <= 0x1.fffffffffffffp1023)) return 0.0f;  // inf or NaN: the row is removed
  const double norm = sqrt(sqnorm * (1.0 + (width + 8.0) * 0x1p-52)) * (1.0 + slack) * (1.0 + 0x1p-50);
  if (norm <= max_norm) return 1.0f;
  const double room = max_norm - sqrt(width) * 0x1p-149;
  if (!(room > 0.0)) return 0.0f;
  return round_down(room / (norm * (1.0 + 0x1p-24)) * (1.0 - 0x1p-50));
}

}  // namespace privkt

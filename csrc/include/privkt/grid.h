// The integer grid: a stored product becomes a whole number of cells, and whole numbers add up exactly in any order.
//
// `scale`, cells per unit, is a power of two, so product * scale is exact in float64. The cells are truncated toward zero:
// each coordinate shrinks or stays, hence no norm grows (rounding to nearest could add sqrt(width)/2 cells to it). Up to
// kMostCells float64 holds every integer, so sums of cells that stay below it are exact in float64 too.
#pragma once

#include "privkt/clip_factor.h"

namespace privkt {

constexpr double kMostCells = 0x1p53;
constexpr int64_t kNoCells = INT64_MIN;  // what a coordinate becomes, and stays, that cannot be summed exactly

// The largest product whose cells `count` summands may have each. Comparing float32 products, not float64 cells, costs half.
PRIVKT_FN float most_product(int64_t count, double scale) {
  const double most = double((int64_t(1) << 53) / (count > 0 ? count : 1)) / scale;  // scale is a power of two: exact
  return most < 0x1.fffffep127 ? round_down(most) : 0x1.fffffep127f;
}

// The product in cells; NaN where it is above `most`, which no clipped product is (or is NaN itself).
PRIVKT_FN double cells_of(float product, double scale, float most) {
  const float held = fabsf(product) <= most ? product : float_of(0x7fc00000u);
  return trunc(double(held) * scale);
}

// int64 of a whole |x| <= 2^53 without a 64-bit conversion, which AVX2 lacks. For whole |k| <= 2^51 the float64 1.5 2^52 + k
// lies in [2^52, 2^53), where neighbours are 1 apart: its bits are those of 1.5 2^52 plus k. x is split into
// high 2^32 + low: adding 1.5 2^52 rounds x 2^-32 to a whole number, |high| <= 2^21; low is what remains, a whole number
// with |low| <= 2^31, so the difference is exact.
PRIVKT_FN int64_t whole(double x) {
  const double shifted = x * 0x1p-32 + 0x1.8p52, high = shifted - 0x1.8p52, low = x - high * 0x1p32;
  const uint64_t zero = bits_of(0x1.8p52);
  return int64_t(((bits_of(shifted) - zero) << 32) + (bits_of(low + 0x1.8p52) - zero));
}

// Adds whole cells to a coordinate. False, and kNoCells there, where they or the sum leave [-2^53, 2^53].
PRIVKT_FN bool add_cells(int64_t *out, double cells) {
  const int64_t most = int64_t(1) << 53, before = *out;
  const bool fits = fabs(cells) <= kMostCells && before >= -most && before <= most;
  const int64_t after = (fits ? before : 0) + whole(fits ? cells : 0.0);
  const bool fine = fits && after >= -most && after <= most;
  *out = fine ? after : kNoCells;
  return fine;
}

}  // namespace privkt

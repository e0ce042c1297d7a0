// What sums of clipped products share: which samples count, and what a stored product adds to its coordinate.
#pragma once

#include "isa.h"
#include "privkt/grid.h"

namespace privkt::PRIVKT_ISA {

namespace {

// What does not count, or has the factor zero that clip_factors gives to what is not finite, is not read at all: 0 * NaN
// would be NaN.
inline bool counts(const uint8_t *mask, const float *factors, int64_t sample) {
  return (mask == nullptr || mask[sample] != 0) && factors[sample] > 0.0f && factors[sample] <= 0x1.fffffep127f;
}

inline int64_t counting(const uint8_t *mask, const float *factors, int64_t batch) {
  int64_t samples = 0;
  for (int64_t b = 0; b < batch; ++b) samples += counts(mask, factors, b) ? 1 : 0;
  return samples;
}

struct AsIs {
  double operator()(float product) const { return double(product); }
};

// Whole cells, whose sums of one product a sample are exact in float64.
struct Cells {
  double scale;
  float most;
  double operator()(float product) const { return cells_of(product, scale, most); }
};

// False if a coordinate did not fit; it is kNoCells then.
inline bool add_whole(const double *sums, int64_t count, int64_t *out) {
  int64_t misfits = 0;
  for (int64_t j = 0; j < count; ++j) misfits += add_cells(out + j, sums[j]) ? 0 : 1;
  return misfits == 0;
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

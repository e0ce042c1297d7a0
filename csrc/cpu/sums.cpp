// The sum of clipped rows: float32 products, which are the stored clipped rows, added in float64.
#include "isa.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Columns at a time: 16 KiB of float64 sums stay in the first-level cache while the rows stream past.
constexpr int64_t kBlock = 2048;

// Each column adds its rows in order b = 0, 1, ..., whatever the vector width: every instruction set gives the same bits.
template <typename T>
void sum_block(const Rows &rows, const float *factors, int64_t first, int64_t count, double *sums) {
  for (int64_t j = 0; j < count; ++j) sums[j] = 0.0;
  for (int64_t b = 0; b < rows.batch; ++b) {
    const float factor = factors[b];
    // Rows that do not count, or whose factor clip_factors has set to zero because they are not finite, are not
    // read at all: 0 * NaN would be NaN.
    if ((rows.mask != nullptr && rows.mask[b] == 0) || !(factor > 0.0f && factor <= 0x1.fffffep127f)) continue;
    const T *row = static_cast<const T *>(rows.data) + b * rows.stride + first;
    for (int64_t j = 0; j < count; ++j) sums[j] += double(factor * load(row, j));
  }
}

template <typename Out>
void finish(const double *sums, int64_t count, Out *out, bool accumulate) {
  for (int64_t j = 0; j < count; ++j) out[j] = Out(accumulate ? double(out[j]) + sums[j] : sums[j]);
}

}  // namespace

void clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate) {
  double sums[kBlock];
  for (int64_t first = 0; first < rows.width; first += kBlock) {
    const int64_t count = rows.width - first < kBlock ? rows.width - first : kBlock;
    if (rows.element == Element::bfloat16) {
      sum_block<uint16_t>(rows, factors, first, count, sums);
    } else {
      sum_block<float>(rows, factors, first, count, sums);
    }
    if (out_element == Element::float64) {
      finish(sums, count, static_cast<double *>(out) + first, accumulate);
    } else {
      finish(sums, count, static_cast<float *>(out) + first, accumulate);
    }
  }
}

}  // namespace privkt::PRIVKT_ISA

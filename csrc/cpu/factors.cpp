// Square norms of rows in float64, and the clip factors that follow from them.
#include "isa.h"
#include "privkt/clip_factor.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Column j goes to partial j % kLanes and the partials are added in one fixed order, so every instruction set gives the
// same bits. Squares of float32 are exact in float64; finite rows cannot overflow it (2^256 a term).
constexpr int kLanes = 32;

template <typename T>
double row_sqnorm(const T *row, int64_t width) {
  double partial[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= width; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = load(row, j + lane);
      partial[lane] += x * x;
    }
  }
  for (int lane = 0; j < width; ++j, ++lane) {
    const double x = load(row, j);
    partial[lane] += x * x;
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

template <typename T>
void all_rows(const Rows &rows, double *sqnorms, bool accumulate) {
  const T *data = static_cast<const T *>(rows.data);
  for (int64_t b = 0; b < rows.batch; ++b) {
    const bool counts = rows.mask == nullptr || rows.mask[b] != 0;
    const double sqnorm = counts ? row_sqnorm(data + b * rows.stride, rows.width) : 0.0;
    sqnorms[b] = accumulate ? sqnorms[b] + sqnorm : sqnorm;
  }
}

}  // namespace

void row_sqnorms(const Rows &rows, double *sqnorms, bool accumulate) {
  if (rows.element == Element::bfloat16) {
    all_rows<uint16_t>(rows, sqnorms, accumulate);
  } else {
    all_rows<float>(rows, sqnorms, accumulate);
  }
}

void clip_factors(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                  float *factors, uint8_t *finite) {
  for (int64_t b = 0; b < batch; ++b) {
    const bool counts = mask == nullptr || mask[b] != 0;
    const bool is_finite = sqnorms[b] <= 0x1.fffffffffffffp1023;
    factors[b] = counts ? clip_factor(sqnorms[b], max_norm, width, slack) : 0.0f;
    finite[b] = uint8_t(is_finite || !counts);
  }
}

}  // namespace privkt::PRIVKT_ISA

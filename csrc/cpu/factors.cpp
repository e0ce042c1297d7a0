// Square norms of rows in float64, and the clip factors that follow from them.
#include "isa.h"
#include "privkt/clip_factor.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Column j goes to partial j % kLanes and the partials are added in one fixed order, so every instruction set gives the
// same bits. Squares of float32 are exact in float64; finite rows cannot overflow it (2^256 a term).
constexpr int kLanes = 32;

// Two rows take turns, a page of each: one stream alone does not keep memory busy.
constexpr int kTogether = 2;
constexpr int64_t kTurnBytes = 4096;

// `count` is a multiple of kLanes but at the end of a row.
template <typename T>
void add_squares(const T *row, int64_t count, double *partial) {
  double sum[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) sum[lane] = partial[lane];
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double x = load(row, j + lane);
      sum[lane] += x * x;
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) partial[lane] = sum[lane];
  for (int lane = 0; j < count; ++j, ++lane) {
    const double x = load(row, j);
    partial[lane] += x * x;
  }
}

double joined(double *partial) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

template <typename T>
void some_rows(const Rows &rows, const int64_t *which, int count, double *sqnorms, bool accumulate) {
  double partial[kTogether][kLanes] = {};
  const int64_t turn = count > 1 ? kTurnBytes / int64_t(sizeof(T)) : rows.width;
  for (int64_t first = 0; first < rows.width; first += turn) {
    const int64_t here = rows.width - first < turn ? rows.width - first : turn;
    for (int r = 0; r < count; ++r) {
      add_squares(static_cast<const T *>(rows.data) + which[r] * rows.stride + first, here, partial[r]);
    }
  }
  for (int r = 0; r < count; ++r) {
    const double sqnorm = joined(partial[r]);
    sqnorms[which[r]] = accumulate ? sqnorms[which[r]] + sqnorm : sqnorm;
  }
}

template <typename T>
void all_rows(const Rows &rows, double *sqnorms, bool accumulate) {
  int64_t which[kTogether];
  int waiting = 0;
  for (int64_t b = 0; b < rows.batch; ++b) {
    if (rows.mask != nullptr && rows.mask[b] == 0) {
      if (!accumulate) sqnorms[b] = 0.0;
      continue;
    }
    which[waiting++] = b;
    if (waiting < kTogether) continue;
    some_rows<T>(rows, which, waiting, sqnorms, accumulate);
    waiting = 0;
  }
  if (waiting > 0) some_rows<T>(rows, which, waiting, sqnorms, accumulate);
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

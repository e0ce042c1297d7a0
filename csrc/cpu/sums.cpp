// The sum of clipped rows: float32 products, which are the stored clipped rows, added in float64.
#include "isa.h"
#include "privkt/grid.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Columns at a time: 32 KiB of float64 sums stay in a near cache while the rows stream past.
constexpr int64_t kBlock = 4096;

// Rows at a time: their products meet in registers, so that the sums are read and written an eighth as often.
constexpr int kTogether = 8;

bool counts(const Rows &rows, const float *factors, int64_t b) {
  return (rows.mask == nullptr || rows.mask[b] != 0) && factors[b] > 0.0f && factors[b] <= 0x1.fffffep127f;
}

// What a product adds to its column: itself, or its whole cells.
struct AsIs {
  double operator()(float product) const { return double(product); }
};
struct Cells {
  double scale, most;
  double operator()(float product) const { return cells_of(product, scale, most); }
};

// Each column adds its rows in order b = 0, 1, ..., whatever the vector width and however many rows go together: every
// instruction set gives the same bits.
template <typename T, int count_rows, typename Term>
void add_rows(const T *const *row, const float *factor, int64_t count, double *sums, Term term) {
  for (int64_t j = 0; j < count; ++j) {
    double sum = sums[j];
    for (int r = 0; r < count_rows; ++r) sum += term(factor[r] * load(row[r], j));
    sums[j] = sum;
  }
}

template <typename T, typename Term>
void sum_block(const Rows &rows, const float *factors, int64_t first, int64_t count, double *sums, Term term) {
  for (int64_t j = 0; j < count; ++j) sums[j] = 0.0;
  const T *row[kTogether];
  float factor[kTogether];
  int waiting = 0;
  for (int64_t b = 0; b < rows.batch; ++b) {
    // Rows that do not count, or whose factor clip_factors has set to zero because they are not finite, are not
    // read at all: 0 * NaN would be NaN.
    if (!counts(rows, factors, b)) continue;
    row[waiting] = static_cast<const T *>(rows.data) + b * rows.stride + first;
    factor[waiting] = factors[b];
    if (++waiting == kTogether) {
      add_rows<T, kTogether>(row, factor, count, sums, term);
      waiting = 0;
    }
  }
  for (int r = 0; r < waiting; ++r) add_rows<T, 1>(row + r, factor + r, count, sums, term);
}

template <typename Out>
void finish(const double *sums, int64_t count, Out *out, bool accumulate) {
  for (int64_t j = 0; j < count; ++j) out[j] = Out(accumulate ? double(out[j]) + sums[j] : sums[j]);
}

bool finish(const double *sums, int64_t count, int64_t *out, bool accumulate) {
  if (!accumulate) {
    for (int64_t j = 0; j < count; ++j) out[j] = 0;
  }
  int64_t misfits = 0;
  for (int64_t j = 0; j < count; ++j) misfits += add_cells(out + j, sums[j]) ? 0 : 1;
  return misfits == 0;
}

template <typename T>
bool sum_rows(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale) {
  double sums[kBlock];
  bool fits = true;
  int64_t counting = 0;
  for (int64_t b = 0; b < rows.batch; ++b) counting += counts(rows, factors, b) ? 1 : 0;
  const Cells cells = {scale, most_cells(counting)};
  for (int64_t first = 0; first < rows.width; first += kBlock) {
    const int64_t count = rows.width - first < kBlock ? rows.width - first : kBlock;
    if (out_element == Element::int64) {
      sum_block<T>(rows, factors, first, count, sums, cells);
      fits &= finish(sums, count, static_cast<int64_t *>(out) + first, accumulate);
      continue;
    }
    sum_block<T>(rows, factors, first, count, sums, AsIs{});
    if (out_element == Element::float64) {
      finish(sums, count, static_cast<double *>(out) + first, accumulate);
    } else {
      finish(sums, count, static_cast<float *>(out) + first, accumulate);
    }
  }
  return fits;
}

}  // namespace

bool clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale) {
  return rows.element == Element::bfloat16 ? sum_rows<uint16_t>(rows, factors, out, out_element, accumulate, scale)
                                           : sum_rows<float>(rows, factors, out, out_element, accumulate, scale);
}

}  // namespace privkt::PRIVKT_ISA

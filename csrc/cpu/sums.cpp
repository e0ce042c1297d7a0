// The sum of clipped rows: float32 products, which are the stored clipped rows, added in float64.
#include "terms.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Columns at a time: 32 KiB of float64 sums stay in a near cache while the rows stream past.
constexpr int64_t kBlock = 4096;

// Rows at a time: their products meet in registers, so that the sums are read and written an eighth as often.
constexpr int kTogether = 8;

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
    if (!counts(rows.mask, factors, b)) continue;
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

template <typename T>
bool sum_rows(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale) {
  double sums[kBlock];
  bool fits = true;
  const Cells cells = {scale, most_cells(counting(rows.mask, factors, rows.batch))};
  for (int64_t first = 0; first < rows.width; first += kBlock) {
    const int64_t count = rows.width - first < kBlock ? rows.width - first : kBlock;
    if (out_element == Element::int64) {
      sum_block<T>(rows, factors, first, count, sums, cells);
      int64_t *to = static_cast<int64_t *>(out) + first;
      for (int64_t j = 0; !accumulate && j < count; ++j) to[j] = 0;
      fits &= add_whole(sums, count, to);
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

// The sum of clipped rows: float32 products, which are the stored clipped rows, added in float64.
#include "terms.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Columns at a time: 64 KiB of float64 sums stay in a near cache while the rows stream past.
constexpr int64_t kBlock = 8192;

// Rows at a time: their products meet in registers, so that the sums are read and written a quarter as often; more streams
// from memory than that, in pieces as short as a block, keep it busy less well.
constexpr int kTogether = 4;

// A line of 16 columns, and how far ahead of it its rows are asked for: hardware stops at the end of a page.
constexpr int64_t kLine = 16, kAheadBytes = 2048;

// Each column adds its rows in order b = 0, 1, ..., whatever the vector width and however many rows go together: every
// instruction set gives the same bits. Rows have `left` columns from here on, of which `count` are added.
template <typename T, int count_rows, typename Term>
void add_rows(const T *const *row, const float *factor, int64_t count, int64_t left, double *sums, Term term) {
  constexpr int64_t ahead = kAheadBytes / int64_t(sizeof(T));
  int64_t j = 0;
  for (; j + kLine <= count; j += kLine) {
    if (j + ahead < left) {
      for (int r = 0; r < count_rows; ++r) PRIVKT_PREFETCH(row[r] + j + ahead);
    }
    double sum[kLine];
    for (int64_t lane = 0; lane < kLine; ++lane) sum[lane] = sums[j + lane];
    for (int r = 0; r < count_rows; ++r) {
      for (int64_t lane = 0; lane < kLine; ++lane) sum[lane] += term(factor[r] * load(row[r], j + lane));
    }
    for (int64_t lane = 0; lane < kLine; ++lane) sums[j + lane] = sum[lane];
  }
  for (; j < count; ++j) {
    for (int r = 0; r < count_rows; ++r) sums[j] += term(factor[r] * load(row[r], j));
  }
}

template <typename T, typename Term>
void add_waiting(int waiting, const T *const *row, const float *factor, int64_t count, int64_t left, double *sums, Term term) {
  static_assert(kTogether == 4, "one case for each number of rows");
  switch (waiting) {
    case 4: return add_rows<T, 4>(row, factor, count, left, sums, term);
    case 3: return add_rows<T, 3>(row, factor, count, left, sums, term);
    case 2: return add_rows<T, 2>(row, factor, count, left, sums, term);
    case 1: return add_rows<T, 1>(row, factor, count, left, sums, term);
    default: return;
  }
}

template <typename T, typename Term>
void sum_block(const Rows &rows, const float *factors, int64_t first, int64_t count, double *sums, Term term) {
  for (int64_t j = 0; j < count; ++j) sums[j] = 0.0;
  const T *row[kTogether];
  float factor[kTogether];
  const int64_t left = rows.width - first;
  int waiting = 0;
  for (int64_t b = 0; b < rows.batch; ++b) {
    if (!counts(rows.mask, factors, b)) continue;
    row[waiting] = static_cast<const T *>(rows.data) + b * rows.stride + first;
    factor[waiting] = factors[b];
    if (++waiting < kTogether) continue;
    add_waiting(waiting, row, factor, count, left, sums, term);
    waiting = 0;
  }
  add_waiting(waiting, row, factor, count, left, sums, term);
}

template <typename Out>
void finish(const double *sums, int64_t count, Out *out, bool accumulate) {
  for (int64_t j = 0; j < count; ++j) out[j] = Out(accumulate ? double(out[j]) + sums[j] : sums[j]);
}

template <typename T>
bool sum_rows(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale) {
  double sums[kBlock];
  bool fits = true;
  const Cells cells = {scale, most_product(counting(rows.mask, factors, rows.batch), scale)};
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

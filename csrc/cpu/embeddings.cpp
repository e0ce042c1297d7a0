// An embedding's rows without the embedding: the steps that look one id up are a segment, and its sum is one row of [V, d].
#include "segments.h"
#include "terms.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kLanes = 32;
constexpr int64_t kColumns = 512;  // at a time: a segment's sum, and what it adds to, stay in the nearest cache
static_assert(kColumns % kLanes == 0, "blocks of columns must begin at lane 0");

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// As in row_sqnorms: column j goes to partial j % kLanes, and the partials meet in one order.
template <typename T>
double sample_sqnorm(const Lookups &x, int64_t sample) {
  const int64_t *ids = x.ids + sample * x.steps, *places = x.places + sample * x.steps;
  double partial[kLanes] = {};
  float sum[kColumns];
  for (int64_t from = 0, end = 0; from < x.steps; from = end) {
    end = run_end(ids, from, x.steps);
    if (ids[from] == x.padding) continue;
    const Segment segment = {places + from, end - from, sample, 0};
    for (int64_t first = 0; first < x.width; first += kColumns) {
      const Columns columns = {first, smaller(kColumns, x.width - first)};
      add_steps<T>(x, segment, columns, sum);
      int64_t j = 0;
      for (; j + kLanes <= columns.count; j += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
          const double value = sum[j + lane];
          partial[lane] += value * value;
        }
      }
      for (int lane = 0; j < columns.count; ++j, ++lane) {
        const double value = sum[j];
        partial[lane] += value * value;
      }
    }
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

// sums[j] += term(float32(factor * segment)), sample by sample, for the places of one id; false if no sample counts.
template <typename T, typename Term>
bool add_samples(const Lookups &x, const float *factors, const int64_t *places, int64_t count, const Columns &columns,
                 Term term, double *sums) {
  float sum[kColumns];
  bool any = false;
  for (int64_t from = 0, end = 0; from < count; from = end) {
    const int64_t sample = places[from] / x.steps, base = sample * x.steps;
    for (end = from + 1; end < count && places[end] < base + x.steps;) ++end;
    if (!counts(x.mask, factors, sample)) continue;
    any = true;
    add_steps<T>(x, {places + from, end - from, sample, base}, columns, sum);
    for (int64_t j = 0; j < columns.count; ++j) sums[j] += term(factors[sample] * sum[j]);
  }
  return any;
}

template <typename T>
bool add_id(const Lookups &x, const float *factors, const int64_t *places, int64_t count, const Columns &columns, void *out,
            Element out_element, int64_t at, const Cells &cells) {
  if (out_element == Element::float64) {
    add_samples<T>(x, factors, places, count, columns, AsIs{}, static_cast<double *>(out) + at);
    return true;
  }
  double sums[kColumns];
  for (int64_t j = 0; j < columns.count; ++j) sums[j] = 0.0;
  if (out_element == Element::int64) {
    return !add_samples<T>(x, factors, places, count, columns, cells, sums) ||
           add_whole(sums, columns.count, static_cast<int64_t *>(out) + at);
  }
  float *to = static_cast<float *>(out) + at;
  if (add_samples<T>(x, factors, places, count, columns, AsIs{}, sums)) {
    for (int64_t j = 0; j < columns.count; ++j) to[j] = float(double(to[j]) + sums[j]);
  }
  return true;
}

template <typename T>
bool add_ids(const Lookups &x, const float *factors, int64_t from, int64_t to, void *out, Element out_element, double scale) {
  const int64_t total = x.batch * x.steps;
  const Cells cells = {scale, most_product(counting(x.mask, factors, x.batch), scale)};
  bool fits = true;
  if (from > 0 && x.ids[from] == x.ids[from - 1]) from = run_end(x.ids, from, total);  // belongs to the range before
  for (int64_t end = 0; from < to; from = end) {
    end = run_end(x.ids, from, total);
    if (x.ids[from] == x.padding) continue;
    for (int64_t first = 0; first < x.width; first += kColumns) {
      const Columns columns = {first, smaller(kColumns, x.width - first)};
      const int64_t at = x.ids[from] * x.width + first;
      fits &= add_id<T>(x, factors, x.places + from, end - from, columns, out, out_element, at, cells);
    }
  }
  return fits;
}

}  // namespace

void embedding_sqnorms(const Lookups &x, double *sqnorms, bool accumulate) {
  for (int64_t b = 0; b < x.batch; ++b) {
    const bool counted = x.mask == nullptr || x.mask[b] != 0;
    const double sqnorm = !counted                             ? 0.0
                          : x.element == Element::bfloat16 ? sample_sqnorm<uint16_t>(x, b)
                                                           : sample_sqnorm<float>(x, b);
    sqnorms[b] = accumulate ? sqnorms[b] + sqnorm : sqnorm;
  }
}

bool clipped_embedding_sum(const Lookups &x, const float *factors, int64_t from, int64_t to, void *out, Element out_element,
                           double scale) {
  return x.element == Element::bfloat16 ? add_ids<uint16_t>(x, factors, from, to, out, out_element, scale)
                                        : add_ids<float>(x, factors, from, to, out, out_element, scale);
}

}  // namespace privkt::PRIVKT_ISA

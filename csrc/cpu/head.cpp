// Softmax and cross-entropy of a tile of logits, in place: the losses first, then what they give back to the logits.
//
// A row (one token) fits a near cache, so its passes cost arithmetic and not memory. Column j goes to partial j % kLanes
// and the partials are combined in one fixed order: every instruction set gives the same bits.
#include "isa.h"
#include "privkt/softmax.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kLanes = 32;

// NaN is not seen by the comparison; it reaches the sum.
template <bool capped>
float map_and_maximum(float *row, int64_t columns, float scale, float cap) {
  float partial[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) partial[lane] = -HUGE_VALF;
  int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float y = mapped<capped>(row[j + lane], scale, cap);
      row[j + lane] = y;
      partial[lane] = y > partial[lane] ? y : partial[lane];
    }
  }
  for (int lane = 0; j < columns; ++j, ++lane) {
    const float y = mapped<capped>(row[j], scale, cap);
    row[j] = y;
    partial[lane] = y > partial[lane] ? y : partial[lane];
  }
  for (int lane = 1; lane < kLanes; ++lane) partial[0] = partial[lane] > partial[0] ? partial[lane] : partial[0];
  return partial[0];
}

// In float64, so that the loss of a token that the model is sure of, ln(1 + little), keeps its digits.
double sum_of_exponentials(const float *row, int64_t columns, float maximum) {
  double partial[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) partial[lane] += double(exp_not_positive(row[j + lane] - maximum));
  }
  for (int lane = 0; j < columns; ++j, ++lane) partial[lane] += double(exp_not_positive(row[j] - maximum));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

// Mapped values become (softmax - onehot) dy/dx. `label` lies in the row or not at all (-1).
template <bool capped>
void gradient(float *row, int64_t columns, int64_t label, float maximum, double sum, float scale, float cap) {
  const float inverse = float(1.0 / sum);
  const float y = label < 0 ? 0.0f : row[label];
  for (int64_t j = 0; j < columns; ++j) {
    row[j] = gradient_elsewhere<capped>(row[j], maximum, inverse, scale, cap);
  }
  if (label >= 0) row[label] = gradient_at_label<capped>(y, maximum, sum, scale, cap);
}

void clear(float *row, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) row[j] = 0.0f;
}

template <bool capped>
void all_losses(const LogitsTile &tile, double *losses, double *stats, bool want_gradient) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float *row = tile.logits + i * tile.stride;
    const int64_t label = tile.labels[i];
    losses[i] = stats[2 * i] = stats[2 * i + 1] = 0.0;
    if (label < 0 || label >= tile.columns) {
      if (want_gradient) clear(row, tile.columns);
      continue;
    }
    const float maximum = map_and_maximum<capped>(row, tile.columns, tile.scale, tile.cap);
    const double sum = sum_of_exponentials(row, tile.columns, maximum);
    losses[i] = log_from_one(sum) - (double(row[label]) - double(maximum));
    stats[2 * i] = maximum;
    stats[2 * i + 1] = sum;
    if (want_gradient) gradient<capped>(row, tile.columns, label, maximum, sum, tile.scale, tile.cap);
  }
}

template <bool capped>
void all_gradients(const LogitsTile &tile, const double *stats, int64_t start) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float *row = tile.logits + i * tile.stride;
    if (tile.labels[i] < 0) {
      clear(row, tile.columns);
      continue;
    }
    for (int64_t j = 0; j < tile.columns; ++j) row[j] = mapped<capped>(row[j], tile.scale, tile.cap);
    const int64_t label = tile.labels[i] - start;
    const bool here = label >= 0 && label < tile.columns;
    gradient<capped>(row, tile.columns, here ? label : -1, float(stats[2 * i]), stats[2 * i + 1], tile.scale, tile.cap);
  }
}

}  // namespace

void head_losses(const LogitsTile &tile, double *losses, double *stats, bool want_gradient) {
  tile.cap > 0.0f ? all_losses<true>(tile, losses, stats, want_gradient)
                  : all_losses<false>(tile, losses, stats, want_gradient);
}

void head_gradient(const LogitsTile &tile, const double *stats, int64_t start) {
  tile.cap > 0.0f ? all_gradients<true>(tile, stats, start) : all_gradients<false>(tile, stats, start);
}

}  // namespace privkt::PRIVKT_ISA

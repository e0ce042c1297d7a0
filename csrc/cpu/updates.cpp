// Total, noise, mean, optimizer state and weight in one pass over memory.
//
// The noisy mean is that of `noise` bit by bit. Every float32 operation is written out and rounded by itself, so that all
// instruction sets and the reference give the same bits; torch, which may fuse some of them, differs in the last places.
#include "isa.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kStretch = 1024;  // coordinates at a time: all of it stays in a near cache

// float32 to bfloat16, to nearest, ties to even.
static inline uint16_t to_bfloat16(float x) {
  const uint32_t b = bits_of(x);
  const uint32_t rounded = (b + 0x7fffu + (b >> 16 & 1)) >> 16;
  return uint16_t((b & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

static inline void store(float *p, int64_t i, float x) { p[i] = x; }
static inline void store(uint16_t *p, int64_t i, float x) { p[i] = to_bfloat16(x); }

// Gradients of coordinates done, done + 1, ... up to `count`; returns how many. Cells beyond 2^53 clear `fits`.
int64_t gradients(const NoisyMean &mean, int64_t done, int64_t count, float *out, bool &fits) {
  const uint64_t index = mean.offset + uint64_t(done);
  const int64_t room = kStretch - int64_t(index % kStretch), here = count - done < room ? count - done : room;
  double units[kStretch];
  const void *base = units;
  Element element = Element::float64;
  if (mean.element == Element::int64) {
    const int64_t *cells = static_cast<const int64_t *>(mean.total) + done, most = int64_t(1) << 53;
    bool all = true;
    for (int64_t i = 0; i < here; ++i) {
      const bool fine = cells[i] >= -most && cells[i] <= most;
      all &= fine;
      units[i] = fine ? double(cells[i]) * mean.cell : double_of(0x7ff8000000000000u);
    }
    fits &= all;
  } else {
    element = mean.element;
    base = static_cast<const char *>(mean.total) + done * (element == Element::float64 ? 8 : 4);
  }
  noise(out, base, element, here, mean.sigma, mean.key, mean.step, index);
  for (int64_t i = 0; i < here; ++i) out[i] = out[i] / mean.divisor;
  if (mean.negative) {
    for (int64_t i = 0; i < here; ++i) out[i] = -out[i];
  }
  return here;
}

template <typename Weight>
bool sgd(const NoisyMean &mean, const SgdStep &how, Weight *weights, float *momentum_buffer, int64_t count) {
  float gradient[kStretch];
  bool fits = true;
  for (int64_t done = 0; done < count;) {
    const int64_t here = gradients(mean, done, count, gradient, fits);
    Weight *w = weights + done;
    if (how.weight_decay != 0.0f) {
      for (int64_t i = 0; i < here; ++i) gradient[i] = gradient[i] + how.weight_decay * load(w, i);
    }
    if (momentum_buffer != nullptr) {
      float *buffer = momentum_buffer + done;
      if (how.first) {
        memcpy(buffer, gradient, 4 * size_t(here));
      } else {
        for (int64_t i = 0; i < here; ++i) buffer[i] = buffer[i] * how.momentum + how.dampened * gradient[i];
      }
      for (int64_t i = 0; i < here; ++i) gradient[i] = how.nesterov ? gradient[i] + how.momentum * buffer[i] : buffer[i];
    }
    for (int64_t i = 0; i < here; ++i) store(w, i, load(w, i) - how.rate * gradient[i]);
    done += here;
  }
  return fits;
}

template <typename Weight>
bool adam(const NoisyMean &mean, const AdamStep &how, Weight *weights, float *exp_avg, float *exp_avg_sq, int64_t count) {
  float gradient[kStretch], shrunk[kStretch];
  bool fits = true;
  for (int64_t done = 0; done < count;) {
    const int64_t here = gradients(mean, done, count, gradient, fits);
    Weight *w = weights + done;
    float *m = exp_avg + done, *v = exp_avg_sq + done;
    if (how.weight_decay != 0.0f) {
      for (int64_t i = 0; i < here; ++i) gradient[i] = gradient[i] + how.weight_decay * load(w, i);
    }
    for (int64_t i = 0; i < here; ++i) {
      const float g = gradient[i], away = g - m[i];
      m[i] = how.first_weight < 0.5f ? m[i] + how.first_weight * away : g - away * (1.0f - how.first_weight);
      v[i] = v[i] * how.second_decay + how.second_weight * g * g;
    }
    float *root = gradient;
    if (how.noise_variance > 0.0f) {
      for (int64_t i = 0; i < here; ++i) {
        const float signal = v[i] / how.correction - how.noise_variance;
        root[i] = sqrtf(signal < how.floor ? how.floor : signal);  // NaN stays
      }
    } else {
      for (int64_t i = 0; i < here; ++i) root[i] = sqrtf(v[i]) / how.root_correction + how.eps;
    }
    for (int64_t i = 0; i < here; ++i) shrunk[i] = load(w, i) * how.shrink;
    for (int64_t i = 0; i < here; ++i) store(w, i, shrunk[i] - how.rate * m[i] / root[i]);
    done += here;
  }
  return fits;
}

}  // namespace

bool sgd_update(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer) {
  if (weights.element == Element::bfloat16) {
    return sgd(mean, how, static_cast<uint16_t *>(weights.data), momentum_buffer, weights.count);
  }
  return sgd(mean, how, static_cast<float *>(weights.data), momentum_buffer, weights.count);
}

bool adam_update(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq) {
  if (weights.element == Element::bfloat16) {
    return adam(mean, how, static_cast<uint16_t *>(weights.data), exp_avg, exp_avg_sq, weights.count);
  }
  return adam(mean, how, static_cast<float *>(weights.data), exp_avg, exp_avg_sq, weights.count);
}

}  // namespace privkt::PRIVKT_ISA

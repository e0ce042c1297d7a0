// Total, noise, mean, optimizer state and weight in one pass over memory; every float32 operation is rounded by itself, in the
// order of csrc/cpu/updates.cpp, hence the CPU's bits.
//
// A thread takes the eight coordinates of a ChaCha20 block: whole 32-byte sectors of every vector, read once.
#pragma once

#include "privkt/blocks/noisy.h"

namespace privkt::blocks {

// What does not fit becomes NaN, and its weight with it, without waiting for the device.
PRIVKT_FN double total_at(const NoisyMean &mean, int64_t i) {
  if (mean.element != Element::int64) return base_at(mean.total, mean.element, i);
  const int64_t cells = static_cast<const int64_t *>(mean.total)[i], most = int64_t(1) << 53;
  return cells >= -most && cells <= most ? double(cells) * mean.cell : double_of(0x7ff8000000000000u);
}

PRIVKT_FN uint16_t to_bfloat16(float x) {  // to nearest, ties to even
  const uint32_t b = bits_of(x);
  return uint16_t((b & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : (b + 0x7fffu + (b >> 16 & 1)) >> 16);
}

PRIVKT_FN void set_element(void *data, Element element, int64_t i, float x) {
  if (element == Element::bfloat16) {
    static_cast<uint16_t *>(data)[i] = to_bfloat16(x);
  } else {
    static_cast<float *>(data)[i] = x;
  }
}

PRIVKT_FN float sgd_weight(const SgdStep &how, float weight, float gradient, float *momentum) {
  if (how.weight_decay != 0.0f) gradient = gradient + how.weight_decay * weight;
  if (momentum != nullptr) {
    *momentum = how.first ? gradient : *momentum * how.momentum + how.dampened * gradient;
    gradient = how.nesterov ? gradient + how.momentum * *momentum : *momentum;
  }
  return weight - how.rate * gradient;
}

PRIVKT_FN float adam_weight(const AdamStep &how, float weight, float gradient, float *m, float *v) {
  if (how.weight_decay != 0.0f) gradient = gradient + how.weight_decay * weight;
  const float away = gradient - *m;
  *m = how.first_weight < 0.5f ? *m + how.first_weight * away : gradient - away * (1.0f - how.first_weight);
  *v = *v * how.second_decay + how.second_weight * gradient * gradient;
  float root;
  if (how.noise_variance > 0.0f) {
    const float signal = *v / how.correction - how.noise_variance;
    root = sqrtf(signal < how.floor ? how.floor : signal);  // NaN stays
  } else {
    root = sqrtf(*v) / how.root_correction + how.eps;
  }
  return weight * how.shrink - how.rate * *m / root;
}

// weight[i] = Step::next(step, i, weight[i], gradient of i) for each coordinate.
template <typename Step>
struct Update {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  using Registers = Nothing;
  NoisyMean mean;
  Weights weights;
  Step step;

  int64_t blocks() const { return weights.count == 0 ? 0 : parts_of(noise_blocks(weights.count, mean.offset), kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Update &p, Team &team, Nothing &, int64_t block) {
    const NoisyMean &mean = p.mean;
    team.apart([&](int thread, Nothing &) {
      noisy_block(block * kThreads + thread, p.weights.count, mean.sigma, mean.key, mean.step, mean.offset,
                  [&](int64_t i) { return total_at(mean, i); },
                  [&](int64_t i, float noisy) {
                    const float gradient = mean.negative ? -(noisy / mean.divisor) : noisy / mean.divisor;
                    const float weight = element_at(p.weights.data, p.weights.element, i);
                    set_element(p.weights.data, p.weights.element, i, Step::next(p.step, i, weight, gradient));
                  });
    });
  }
};

struct Sgd {
  SgdStep how;
  float *momentum_buffer;
  PRIVKT_FN float next(const Sgd &s, int64_t i, float weight, float gradient) {
    return sgd_weight(s.how, weight, gradient, s.momentum_buffer == nullptr ? nullptr : s.momentum_buffer + i);
  }
};

struct Adam {
  AdamStep how;
  float *exp_avg, *exp_avg_sq;
  PRIVKT_FN float next(const Adam &s, int64_t i, float weight, float gradient) {
    return adam_weight(s.how, weight, gradient, s.exp_avg + i, s.exp_avg_sq + i);
  }
};

template <typename Launch>
static int sgd_update(const Launch &launch, const NoisyMean &mean, const SgdStep &how, const Weights &weights,
                      float *momentum_buffer) {
  return launch(Update<Sgd>{mean, weights, {how, momentum_buffer}});
}

template <typename Launch>
static int adam_update(const Launch &launch, const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg,
                       float *exp_avg_sq) {
  return launch(Update<Adam>{mean, weights, {how, exp_avg, exp_avg_sq}});
}

}  // namespace privkt::blocks

// Coordinates of a noisy sum, eight to a ChaCha20 block: float32(base + sigma z), correctly rounded (gaussian.h).
#pragma once

#include "privkt/blocks/team.h"
#include "privkt/gaussian.h"

namespace privkt::blocks {

PRIVKT_FN double base_at(const void *base, Element element, int64_t i) {
  if (base == nullptr) return 0.0;
  return element == Element::float64 ? static_cast<const double *>(base)[i] : double(static_cast<const float *>(base)[i]);
}

PRIVKT_FN float noisy_value(const FastPair &pair, int which, double start, double sigma, const NoiseKey &key, uint64_t step,
                            uint64_t index) {
  float value;
  if (fast_noise(pair, which, start, sigma, &value)) return value;
  return fabs(start) <= 0x1.fffffffffffffp1023 ? exact_noise(key.word, step, index, start, sigma) : float(start);
}

// The coordinates [0, count) that noise numbers offset, offset + 1, ... lie in `noise_blocks` blocks of eight.
PRIVKT_FN int64_t noise_blocks(int64_t count, uint64_t offset) {
  return (int64_t(offset % kNormalsPerBlock) + count + kNormalsPerBlock - 1) / kNormalsPerBlock;
}

// use(i, value) for the coordinates i of the b-th of these blocks; start(i) is what noise is added to. sigma 0: no noise.
template <typename Start, typename Use>
PRIVKT_BLOCK_FN void noisy_block(int64_t b, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                                 Start start, Use use) {
  const int64_t first = b * kNormalsPerBlock - int64_t(offset % kNormalsPerBlock);
  uint32_t words[16];
  if (sigma > 0.0) chacha20_block_at(key.word, offset / kNormalsPerBlock + uint64_t(b), step, words);
  for (int p = 0; p < kNormalsPerBlock / 2; ++p) {
    FastPair pair = {0.0, 0.0, false};
    if (sigma > 0.0) {
      const Uniforms uniforms = uniforms_of(words, p);
      pair = fast_normals(uniforms.radius, uniforms.angle);
    }
    for (int which = 0; which < 2; ++which) {
      const int64_t i = first + 2 * p + which;
      if (i < 0 || i >= count) continue;
      const double from = start(i);
      use(i, sigma > 0.0 ? noisy_value(pair, which, from, sigma, key, step, offset + uint64_t(i)) : float(from));
    }
  }
}

// out[i] = float32(base[i] + sigma z(step, offset + i)); a thread takes one ChaCha20 block.
struct Noise {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  using Registers = Nothing;
  float *out;
  const void *base;
  Element base_element;
  int64_t count;
  double sigma;
  NoiseKey key;
  uint64_t step, offset;

  int64_t blocks() const { return count == 0 ? 0 : parts_of(noise_blocks(count, offset), kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Noise &p, Team &team, Nothing &, int64_t block) {
    team.apart([&](int thread, Nothing &) {
      noisy_block(block * kThreads + thread, p.count, p.sigma, p.key, p.step, p.offset,
                  [&](int64_t i) { return base_at(p.base, p.base_element, i); },
                  [&](int64_t i, float value) { p.out[i] = value; });
    });
  }
};

template <typename Launch>
static int noise(const Launch &launch, float *out, const void *base, Element base_element, int64_t count, double sigma,
                 const NoiseKey &key, uint64_t step, uint64_t offset) {
  return launch(Noise{out, base, base_element, count, sigma, key, step, offset});
}

}  // namespace privkt::blocks

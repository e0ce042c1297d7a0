// The discrete Gaussian (discrete_gaussian.h), a thread a coordinate: the very function of the CPU, and so its integers.
//
// Rejection sends the threads of a warp different ways. A coordinate needs some tens of words; its ChaCha20 blocks are made as
// they are needed and kept in memory of its own.
#pragma once

#include "privkt/blocks/team.h"
#include "privkt/discrete_gaussian.h"

namespace privkt::blocks {

struct Discrete {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  using Registers = Nothing;
  int64_t *out;
  int64_t count;
  DiscreteGaussian distribution;
  NoiseKey key;
  uint64_t step, offset;
  bool accumulate;

  int64_t blocks() const { return parts_of(count, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Discrete &p, Team &team, Nothing &, int64_t block) {
    team.apart([&](int thread, Nothing &) {
      const int64_t i = block * kThreads + thread;
      if (i >= p.count) return;
      WordStream stream = {};
      stream.key = p.key.word;
      stream.step = p.step;
      stream.coordinate = p.offset + uint64_t(i);
      const int64_t x = draw(p.distribution, stream);
      p.out[i] = p.accumulate ? p.out[i] + x : x;
    });
  }
};

template <typename Launch>
static int discrete_gaussian(const Launch &launch, int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
                             uint64_t offset, bool accumulate) {
  return launch(Discrete{out, count, discrete_gaussian_of(sigma), key, step, offset, accumulate});
}

}  // namespace privkt::blocks

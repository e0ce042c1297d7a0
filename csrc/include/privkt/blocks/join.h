// The end of a norm: a sample's partial sums meet in 32 lanes and these in a tree, an order that only their number fixes.
#pragma once

#include "privkt/blocks/team.h"

namespace privkt::blocks {

// Every thread's value is added to that of the thread half the team away, then half of that, ...; thread 0 has the sum.
template <int threads, typename Team>
PRIVKT_BLOCK_FN void join_tree(Team &team, double *partial) {
  for (int half = threads / 2; half > 0; half /= 2) {
    team.each([&](int thread, auto &) {
      if (thread < half) partial[thread] += partial[thread + half];
    });
  }
}

// sqnorms[b] (+)= factor * sum of values[b], [batch, count]; one block a sample.
struct Join {
  static constexpr int kThreads = 32;
  struct Shared {
    double partial[kThreads];
  };
  using Registers = Nothing;
  const double *values;
  int64_t batch, count;
  double factor;
  const uint8_t *mask;
  double *sqnorms;
  bool accumulate;

  int64_t blocks() const { return batch; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Join &p, Team &team, Shared &shared, int64_t sample) {
    const bool counted = in_mask(p.mask, sample);  // else its values were not written
    team.each([&](int thread, auto &) {
      double sum = 0.0;
      if (counted) {
        for (int64_t j = thread; j < p.count; j += kThreads) sum += p.values[sample * p.count + j];
      }
      shared.partial[thread] = sum;
    });
    join_tree<kThreads>(team, shared.partial);
    team.apart([&](int thread, auto &) {
      if (thread != 0) return;
      const double sqnorm = shared.partial[0] * p.factor;
      p.sqnorms[sample] = p.accumulate ? p.sqnorms[sample] + sqnorm : sqnorm;
    });
  }
};

}  // namespace privkt::blocks

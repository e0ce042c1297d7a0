// Rows that lie in memory: their square norms, the clip factors that follow, and the sum of clipped rows.
#pragma once

#include "privkt/blocks/join.h"
#include "privkt/blocks/sums.h"
#include "privkt/clip_factor.h"

namespace privkt::blocks {

// sqnorms[b] (+)= |row b|^2, one block a row. The bound of clip_factor.h holds for any order of addition, so the CPU's sum may
// differ in its last bits without harm.
struct RowSquares {
  static constexpr int kThreads = 512;
  struct Shared {
    double partial[kThreads];
  };
  using Registers = Nothing;
  Rows x;
  double *sqnorms;
  bool accumulate;

  int64_t blocks() const { return x.batch; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const RowSquares &p, Team &team, Shared &shared, int64_t row) {
    const bool counted = in_mask(p.x.mask, row);
    team.each([&](int thread, auto &) {
      double sum = 0.0;
      for (int64_t j = thread; counted && j < p.x.width; j += kThreads) {
        const double value = element_at(p.x.data, p.x.element, row * p.x.stride + j);
        sum += value * value;
      }
      shared.partial[thread] = sum;
    });
    join_tree<kThreads>(team, shared.partial);
    team.apart([&](int thread, auto &) {
      if (thread == 0) p.sqnorms[row] = p.accumulate ? p.sqnorms[row] + shared.partial[0] : shared.partial[0];
    });
  }
};

template <typename Launch>
static int row_sqnorms(const Launch &launch, const Rows &x, double *sqnorms, bool accumulate) {
  return launch(RowSquares{x, sqnorms, accumulate});
}

struct Factors {
  static constexpr int kThreads = 128;
  using Shared = Nothing;
  using Registers = Nothing;
  const double *sqnorms;
  const uint8_t *mask;
  int64_t batch;
  double max_norm, width, slack;
  float *factors;
  uint8_t *finite;

  int64_t blocks() const { return parts_of(batch, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Factors &p, Team &team, Nothing &, int64_t block) {
    team.apart([&](int thread, Nothing &) {
      const int64_t b = block * kThreads + thread;
      if (b >= p.batch) return;
      const bool counted = in_mask(p.mask, b), is_finite = p.sqnorms[b] <= 0x1.fffffffffffffp1023;
      p.factors[b] = counted ? clip_factor(p.sqnorms[b], p.max_norm, p.width, p.slack) : 0.0f;
      p.finite[b] = uint8_t(is_finite || !counted);
    });
  }
};

template <typename Launch>
static int clip_factors(const Launch &launch, const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm,
                        double width, double slack, float *factors, uint8_t *finite) {
  return launch(Factors{sqnorms, mask, batch, max_norm, width, slack, factors, finite});
}

// One thread a column, rows in order b = 0, 1, ...: the CPU's order, hence the CPU's bits.
template <typename Out>
struct RowSum {
  static constexpr int kThreads = 256;
  using Shared = Nothing;
  using Registers = Nothing;
  Rows x;
  const float *factors;
  Out *out;
  bool accumulate;
  double scale;

  int64_t blocks() const { return parts_of(x.width, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const RowSum &p, Team &team, Nothing &, int64_t block) {
    const float most = most_of<Out>(p.x.mask, p.factors, p.x.batch, p.scale);
    team.apart([&](int thread, Nothing &) {
      const int64_t j = block * kThreads + thread;
      if (j >= p.x.width) return;
      double sum = 0.0;
      for (int64_t b = 0; b < p.x.batch; ++b) {
        if (!counts(p.x.mask, p.factors, b)) continue;
        sum += term<Out>(p.factors[b] * element_at(p.x.data, p.x.element, b * p.x.stride + j), p.scale, most);
      }
      if constexpr (std::is_same_v<Out, int64_t>) {
        if (!p.accumulate) p.out[j] = 0;
        add_cells(p.out + j, sum);
      } else {
        p.out[j] = Out(p.accumulate ? double(p.out[j]) + sum : sum);
      }
    });
  }
};

template <typename Launch>
static int clipped_sum(const Launch &launch, const Rows &x, const float *factors, void *out, Element out_element,
                       bool accumulate, double scale) {
  return with_out(out, out_element, [&](auto *to) {
    return launch(RowSum<std::remove_pointer_t<decltype(to)>>{x, factors, to, accumulate, scale});
  });
}

}  // namespace privkt::blocks

// An embedding's rows without the embedding: the steps that look one id up are a segment, and its sum is one row of [V, d].
//
// Ids come sorted, so a segment is a run of equal ids; its float32 sum goes over the steps in their order, as on the CPU.
#pragma once

#include "privkt/blocks/join.h"
#include "privkt/blocks/sums.h"

namespace privkt::blocks {

constexpr int kRuns = 32;  // places of sorted ids whose runs one block takes, so that T alone says how a norm is cut
constexpr int kColumnThreads = 128;

PRIVKT_FN bool begins(const int64_t *ids, int64_t at) { return at == 0 || ids[at] != ids[at - 1]; }

PRIVKT_FN int64_t run_end(const int64_t *ids, int64_t from, int64_t count) {
  int64_t end = from + 1;
  while (end < count && ids[end] == ids[from]) ++end;
  return end;
}

// float32 sum of column j over the steps places[from...end) - base of one sample, in their order.
PRIVKT_FN float segment_sum(const Lookups &x, int64_t sample, int64_t base, int64_t from, int64_t end, int64_t j) {
  const int64_t at = sample * x.sample_stride + j;
  float sum = element_at(x.grad, x.element, at + (x.places[from] - base) * x.step_stride);
  for (int64_t i = from + 1; i < end; ++i) sum += element_at(x.grad, x.element, at + (x.places[i] - base) * x.step_stride);
  return sum;
}

// values[b, part] = sum of the squares of the rows whose runs begin in that part of the sample's sorted ids.
struct SegmentSquares {
  static constexpr int kThreads = kColumnThreads;
  struct Shared {
    double partial[kThreads];
  };
  using Registers = Nothing;
  Lookups x;  // sorted sample by sample
  double *values;

  int64_t blocks() const { return x.batch * parts_of(x.steps, kRuns); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const SegmentSquares &p, Team &team, Shared &shared, int64_t block) {
    const int64_t parts = (p.x.steps + kRuns - 1) / kRuns, sample = block / parts, first = block % parts * kRuns;
    if (!in_mask(p.x.mask, sample)) return;
    Lookups x = p.x;  // of this sample alone
    x.ids += sample * x.steps;
    x.places += sample * x.steps;
    const int64_t last = smaller(first + kRuns, x.steps);
    team.each([&](int thread, auto &) {
      double sum = 0.0;
      for (int64_t from = first; from < last; ++from) {
        if (!begins(x.ids, from) || x.ids[from] == x.padding) continue;
        const int64_t end = run_end(x.ids, from, x.steps);
        for (int64_t j = thread; j < x.width; j += kThreads) {
          const double value = segment_sum(x, sample, 0, from, end, j);
          sum += value * value;
        }
      }
      shared.partial[thread] = sum;
    });
    join_tree<kThreads>(team, shared.partial);
    team.apart([&](int thread, auto &) {
      if (thread == 0) p.values[block] = shared.partial[0];
    });
  }
};

// workspace: [batch, parts_of(steps, kRuns)].
template <typename Launch>
static int embedding_sqnorms(const Launch &launch, const Lookups &x, double *sqnorms, bool accumulate, double *workspace) {
  const int failed = launch(SegmentSquares{x, workspace});
  return failed != 0 ? failed : launch(Join{workspace, x.batch, parts_of(x.steps, kRuns), 1.0, x.mask, sqnorms, accumulate});
}

// One block for a place of the sorted ids and 128 columns; it works if a run begins there. An id has one run, so that nobody
// else writes its row, and its samples come in order.
template <typename Out>
struct SegmentSum {
  static constexpr int kThreads = kColumnThreads;
  using Shared = Nothing;
  using Registers = Nothing;
  Lookups x;  // all samples sorted together
  const float *factors;
  Out *out;
  double scale;

  int64_t blocks() const { return x.batch * x.steps * parts_of(x.width, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const SegmentSum &p, Team &team, Nothing &, int64_t block) {
    const Lookups &x = p.x;
    const int64_t across = (x.width + kThreads - 1) / kThreads, at = block / across, total = x.batch * x.steps;
    if (!begins(x.ids, at) || x.ids[at] == x.padding) return;
    const int64_t stop = run_end(x.ids, at, total);
    const float most = most_of<Out>(x.mask, p.factors, x.batch, p.scale);
    team.apart([&](int thread, auto &) {
      const int64_t column = block % across * kThreads + thread;
      if (column >= x.width) return;
      bool any = false;
      double sum = 0.0;
      for (int64_t from = at, next = at; from < stop; from = next) {
        const int64_t sample = x.places[from] / x.steps, base = sample * x.steps;
        for (next = from + 1; next < stop && x.places[next] < base + x.steps;) ++next;
        if (!counts(x.mask, p.factors, sample)) continue;
        // only ids of samples that count are demanded to be rows of `out`
        if (!any) sum = begun(p.out + x.ids[at] * x.width + column);
        any = true;
        sum += term<Out>(p.factors[sample] * segment_sum(x, sample, base, from, next, column), p.scale, most);
      }
      if (any) end(p.out + x.ids[at] * x.width + column, sum);
    });
  }
};

template <typename Launch>
static int clipped_embedding_sum(const Launch &launch, const Lookups &x, const float *factors, void *out, Element out_element,
                                 double scale) {
  return with_out(out, out_element, [&](auto *to) {
    return launch(SegmentSum<std::remove_pointer_t<decltype(to)>>{x, factors, to, scale});
  });
}

}  // namespace privkt::blocks

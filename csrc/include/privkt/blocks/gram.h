// Norms of rows R_b = left_b^T right_b from inner products of their steps, in tiles of 32 x 32 pairs of steps.
//
// An inner product has the CPU's bits: sixteen lanes, column j in lane j % 16 by fused multiply-adds over j ascending, which
// meet in the CPU's tree (csrc/cpu/gram.cpp). Their float64 products are added in another order than there, fixed by T alone;
// the bound of product_bound.h holds for any order. Only tiles on and above the diagonal are made: a pair stands for two.
//
// 16 threads are the lanes of an entry and share 8 x 8 entries, so that 16 loads from shared memory feed 64 multiplications.
// Rows of shared memory are 34 floats apart: half a warp's 16 lanes then meet other banks than those of the other half, whose
// rows lie 8 further on.
#pragma once

#include "privkt/blocks/join.h"
#include "privkt/product_bound.h"

namespace privkt::blocks {

constexpr int kPairs = 32, kEight = 8, kChunk = 2 * kGramLanes, kGramThreads = kGramLanes * (kPairs / kEight) * (kPairs / kEight);
constexpr int kBrought = kPairs * kChunk / kGramThreads;  // elements of one side of a chunk that a thread brings
constexpr int kSums = 4;                                  // what a tile leaves: the parts of GramSums

static inline int64_t tiles_of(int64_t steps) { return parts_of(steps, kPairs) * (parts_of(steps, kPairs) + 1) / 2; }

struct GramTiles {
  static constexpr int kThreads = kGramThreads;
  struct Shared {
    float one[kPairs][kChunk + 2], two[kPairs][kChunk + 2];
    float lanes[kPairs / kEight * kPairs][kGramLanes + 1];  // of the entries of every eighth row
    float left[kPairs][kPairs], right[kPairs][kPairs];
    double partial[kSums][kGramThreads];
  };
  struct Registers {
    float sum[kEight][kEight];
  };
  Products x;
  double *sums;  // [batch, tiles, kSums]

  int64_t blocks() const { return x.batch * tiles_of(x.steps); }

  PRIVKT_BLOCK_FN void bring(const Sequence &x, int64_t sample, int64_t step, int64_t steps, int64_t column, int thread,
                             float (*into)[kChunk + 2]) {
    PRIVKT_UNROLLED
    for (int k = 0; k < kBrought; ++k) {
      const int at = thread + k * kGramThreads;
      const int64_t t = step + at / kChunk, j = column + at % kChunk;
      const bool there = t < steps && j < x.width;
      into[at / kChunk][at % kChunk] =
          there ? element_at(x.data, x.element, sample * x.sample_stride + t * x.step_stride + j) : 0.0f;
    }
  }

  // entries[i][j] = <x_(one + i), x_(two + j)>. Zeros beyond the last column add nothing: fma(0, 0, s) is s but for the sign
  // of a zero, and the CPU fills its last sixteen columns up with zeros as well.
  template <typename Team>
  PRIVKT_BLOCK_FN void make_entries(Team &team, Shared &shared, const Sequence &x, int64_t sample, int64_t steps, int64_t one,
                                    int64_t two, float (*entries)[kPairs]) {
    team.apart([&](int, Registers &mine) {
      PRIVKT_UNROLLED
      for (int i = 0; i < kEight; ++i) {
        PRIVKT_UNROLLED
        for (int j = 0; j < kEight; ++j) mine.sum[i][j] = 0.0f;
      }
    });
    for (int64_t column = 0; column < x.width; column += kChunk) {
      team.each([&](int thread, Registers &) {
        bring(x, sample, one, steps, column, thread, shared.one);
        bring(x, sample, two, steps, column, thread, shared.two);
      });
      team.each([&](int thread, Registers &mine) {
        const int lane = thread % kGramLanes, group = thread / kGramLanes;
        const int rows = group / (kPairs / kEight) * kEight, columns = group % (kPairs / kEight) * kEight;
        for (int at = lane; at < kChunk && column + at - lane < x.width; at += kGramLanes) {
          float first[kEight], second[kEight];
          PRIVKT_UNROLLED
          for (int i = 0; i < kEight; ++i) first[i] = shared.one[rows + i][at];
          PRIVKT_UNROLLED
          for (int j = 0; j < kEight; ++j) second[j] = shared.two[columns + j][at];
          PRIVKT_UNROLLED
          for (int i = 0; i < kEight; ++i) {
            PRIVKT_UNROLLED
            for (int j = 0; j < kEight; ++j) mine.sum[i][j] = fmaf(first[i], second[j], mine.sum[i][j]);
          }
        }
      });
    }
    PRIVKT_UNROLLED
    for (int i = 0; i < kEight; ++i) {  // lanes of 128 entries at a time: those of all would not fit
      team.each([&](int thread, Registers &mine) {
        const int lane = thread % kGramLanes, group = thread / kGramLanes;
        const int first = group / (kPairs / kEight) * kPairs + group % (kPairs / kEight) * kEight;
        PRIVKT_UNROLLED
        for (int j = 0; j < kEight; ++j) shared.lanes[first + j][lane] = mine.sum[i][j];
      });
      team.each([&](int thread, Registers &) {
        if (thread >= kPairs / kEight * kPairs) return;
        float lane[kGramLanes];
        PRIVKT_UNROLLED
        for (int k = 0; k < kGramLanes; ++k) lane[k] = shared.lanes[thread][k];
        PRIVKT_UNROLLED
        for (int half = kGramLanes / 2; half > 0; half /= 2) {
          PRIVKT_UNROLLED
          for (int k = 0; k < kGramLanes / 2; ++k) {
            if (k < half) lane[k] += lane[k + half];
          }
        }
        entries[thread / kPairs * kEight + i][thread % kPairs] = lane[0];
      });
    }
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const GramTiles &p, Team &team, Shared &shared, int64_t block) {
    const int64_t across = (p.x.steps + kPairs - 1) / kPairs, tiles = across * (across + 1) / 2, sample = block / tiles;
    if (!in_mask(p.x.mask, sample)) return;
    int64_t row = 0, column = block % tiles;  // the upper triangle, row by row
    for (; column >= across - row; ++row) column -= across - row;
    const int64_t one = row * kPairs, two = (row + column) * kPairs;
    make_entries(team, shared, p.x.left, sample, p.x.steps, one, two, shared.left);
    make_entries(team, shared, p.x.right, sample, p.x.steps, one, two, shared.right);
    team.each([&](int thread, Registers &) {
      const GramError left_error = gram_error(p.x.left.width), right_error = gram_error(p.x.right.width);
      GramSums sums = {0.0, 0.0, 0.0, 0.0};
      for (int at = thread; at < kPairs * kPairs; at += kGramThreads) {
        const int i = at / kPairs, j = at % kPairs;
        if (one + i >= p.x.steps || two + j >= p.x.steps || one + i > two + j) continue;
        const float l = shared.left[i][j], r = shared.right[i][j];
        const double product = double(l) * double(r);
        if (one + i != two + j) {
          sums.sum += 2.0 * product;
          continue;
        }
        const double lambda = norm_above(l, left_error), rho = norm_above(r, right_error);
        sums.sum += product;
        sums.sizes += lambda * rho;
        sums.left += lambda;
        sums.right += rho;
      }
      shared.partial[0][thread] = sums.sum;
      shared.partial[1][thread] = sums.sizes;
      shared.partial[2][thread] = sums.left;
      shared.partial[3][thread] = sums.right;
    });
    for (int which = 0; which < kSums; ++which) join_tree<kGramThreads>(team, shared.partial[which]);
    team.apart([&](int thread, Registers &) {
      if (thread < kSums) p.sums[block * kSums + thread] = shared.partial[thread][0];
    });
  }
};

// The bound of each sample from its tiles' sums; one block a sample.
struct GramBound {
  static constexpr int kThreads = 32;
  struct Shared {
    double partial[kSums][kThreads];
  };
  using Registers = Nothing;
  Products x;
  const double *sums;
  double *sqnorms;
  bool accumulate;

  int64_t blocks() const { return x.batch; }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const GramBound &p, Team &team, Shared &shared, int64_t sample) {
    const int64_t across = (p.x.steps + kPairs - 1) / kPairs, tiles = across * (across + 1) / 2;
    const bool counted = in_mask(p.x.mask, sample);
    team.each([&](int thread, Nothing &) {
      double sum[kSums] = {0.0, 0.0, 0.0, 0.0};
      for (int64_t tile = thread; counted && tile < tiles; tile += kThreads) {
        for (int which = 0; which < kSums; ++which) sum[which] += p.sums[(sample * tiles + tile) * kSums + which];
      }
      for (int which = 0; which < kSums; ++which) shared.partial[which][thread] = sum[which];
    });
    for (int which = 0; which < kSums; ++which) join_tree<kThreads>(team, shared.partial[which]);
    team.apart([&](int thread, Nothing &) {
      if (thread != 0) return;
      const GramSums sums = {shared.partial[0][0], shared.partial[1][0], shared.partial[2][0], shared.partial[3][0]};
      const double bound = counted ? product_sqnorm_bound(sums, p.x.steps, p.x.left.width, p.x.right.width) : 0.0;
      p.sqnorms[sample] = p.accumulate ? p.sqnorms[sample] + bound : bound;
    });
  }
};

// workspace: [batch, tiles_of(steps), kSums].
template <typename Launch>
static int product_sqnorms_gram(const Launch &launch, const Products &x, double *sqnorms, bool accumulate, double *workspace) {
  const int failed = launch(GramTiles{x, workspace});
  return failed != 0 ? failed : launch(GramBound{x, workspace, sqnorms, accumulate});
}

}  // namespace privkt::blocks

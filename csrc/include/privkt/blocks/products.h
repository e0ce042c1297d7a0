// Rows R_b = left_b^T right_b that are never written, in tiles of 64 x 64: their clipped sum and their norms.
//
// An entry is acc = fma(left[t, i], right[t, j], acc) over t ascending from 0, in one thread's register: the CPU's operations
// in the CPU's order (csrc/cpu/tiles.h), hence its bits. Tensor cores would not do: they add several products at once,
// rounded in a way that no document fixes.
//
// 256 threads, each with 4 x 4 entries. 16 steps of both sides at a time go through shared memory, whose 128 columns each
// feed 64 multiplications; neighbouring threads read neighbouring columns, so that whole lines come from memory. The next 16
// steps are fetched into registers while these are multiplied, and wait in the other half of shared memory: one barrier for
// 16 steps.
#pragma once

#include "privkt/blocks/join.h"
#include "privkt/blocks/sums.h"

namespace privkt::blocks {

constexpr int kSide = 64, kDepth = 16, kCell = 4, kAcross = kSide / kCell, kTileThreads = kAcross * kAcross;
constexpr int kFetched = kSide * kDepth / kTileThreads;  // elements of one side that a thread brings

struct alignas(16) Four {
  float at[kCell];
};

struct Panels {
  Four left[2][kDepth][kAcross], right[2][kDepth][kAcross];
};

struct TileRegisters {
  float sum[kCell][kCell], left[kFetched], right[kFetched];
};

struct Tile {
  int64_t sample, row, column;  // of the row [p, d]
};

// A thread's elements of steps `first` and on; zeros beyond the last step and column, which reach no entry that is used.
PRIVKT_BLOCK_FN void fetch(const Sequence &x, int64_t sample, int64_t first, int64_t steps, int64_t column, int thread,
                           float *into) {
  PRIVKT_UNROLLED
  for (int k = 0; k < kFetched; ++k) {
    const int at = thread + k * kTileThreads;
    const int64_t step = first + at / kSide, j = column + at % kSide;
    const bool there = step < steps && j < x.width;
    into[k] = there ? element_at(x.data, x.element, sample * x.sample_stride + step * x.step_stride + j) : 0.0f;
  }
}

PRIVKT_BLOCK_FN void put(const float *from, int thread, Four (*panel)[kAcross]) {
  PRIVKT_UNROLLED
  for (int k = 0; k < kFetched; ++k) {
    const int at = thread + k * kTileThreads;
    panel[at / kSide][at % kSide / kCell].at[at % kCell] = from[k];
  }
}

// Exactly `steps` steps: a further one of zeros could turn a -0 into 0.
PRIVKT_BLOCK_FN void multiply(const Panels &panels, int half, int steps, int thread, float (*sum)[kCell]) {
  const int rows = thread / kAcross, columns = thread % kAcross;
#if defined(__CUDACC__)
#pragma unroll 8
#endif
  for (int t = 0; t < steps; ++t) {
    const Four l = panels.left[half][t][rows], r = panels.right[half][t][columns];
    PRIVKT_UNROLLED
    for (int i = 0; i < kCell; ++i) {
      PRIVKT_UNROLLED
      for (int j = 0; j < kCell; ++j) sum[i][j] = fmaf(l.at[i], r.at[j], sum[i][j]);
    }
  }
}

// Leaves entry [4 (thread / 16) + i, 4 (thread % 16) + j] of the tile in the thread's sum[i][j]. All have waited at its end.
template <typename Team>
PRIVKT_BLOCK_FN void make_tile(Team &team, Panels &panels, const Products &x, const Tile &tile) {
  team.each([&](int thread, auto &mine) {
    PRIVKT_UNROLLED
    for (int i = 0; i < kCell; ++i) {
      PRIVKT_UNROLLED
      for (int j = 0; j < kCell; ++j) mine.tile.sum[i][j] = 0.0f;
    }
    fetch(x.left, tile.sample, 0, x.steps, tile.row, thread, mine.tile.left);
    fetch(x.right, tile.sample, 0, x.steps, tile.column, thread, mine.tile.right);
    put(mine.tile.left, thread, panels.left[0]);
    put(mine.tile.right, thread, panels.right[0]);
  });
  int half = 0;
  for (int64_t step = 0; step < x.steps; step += kDepth, half ^= 1) {
    team.each([&](int thread, auto &mine) {
      const bool more = step + kDepth < x.steps;
      if (more) {
        fetch(x.left, tile.sample, step + kDepth, x.steps, tile.row, thread, mine.tile.left);
        fetch(x.right, tile.sample, step + kDepth, x.steps, tile.column, thread, mine.tile.right);
      }
      multiply(panels, half, int(smaller(kDepth, x.steps - step)), thread, mine.tile.sum);
      if (more) {
        put(mine.tile.left, thread, panels.left[half ^ 1]);
        put(mine.tile.right, thread, panels.right[half ^ 1]);
      }
    });
  }
}

// One block a tile of the sum, which takes its samples in order: each thread keeps the float64 sums of its entries.
template <typename Out>
struct ProductSum {
  static constexpr int kThreads = kTileThreads;
  struct Shared {
    Panels panels;
  };
  struct Registers {
    TileRegisters tile;
    double total[kCell][kCell];
  };
  Products x;
  const float *factors;
  Out *out;
  int64_t out_stride;
  double scale;

  int64_t blocks() const { return parts_of(x.left.width, kSide) * parts_of(x.right.width, kSide); }

  // use(out, total) for each of the thread's entries that there is.
  template <typename Use>
  PRIVKT_BLOCK_FN void entries(const ProductSum &p, const Tile &tile, int thread, double (*total)[kCell], Use use) {
    PRIVKT_UNROLLED
    for (int i = 0; i < kCell; ++i) {
      PRIVKT_UNROLLED
      for (int j = 0; j < kCell; ++j) {
        const int64_t row = tile.row + kCell * (thread / kAcross) + i, column = tile.column + kCell * (thread % kAcross) + j;
        if (row < p.x.left.width && column < p.x.right.width) use(p.out + row * p.out_stride + column, total[i][j]);
      }
    }
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const ProductSum &p, Team &team, Shared &shared, int64_t block) {
    const int64_t across = (p.x.right.width + kSide - 1) / kSide;
    const float most = most_of<Out>(p.x.mask, p.factors, p.x.batch, p.scale);
    Tile tile = {0, block / across * kSide, block % across * kSide};
    team.apart([&](int thread, Registers &mine) {
      PRIVKT_UNROLLED
      for (int i = 0; i < kCell; ++i) {
        PRIVKT_UNROLLED
        for (int j = 0; j < kCell; ++j) mine.total[i][j] = 0.0;
      }
      entries(p, tile, thread, mine.total, [](const Out *out, double &total) { total = begun(out); });
    });
    for (int64_t b = 0; b < p.x.batch; ++b) {
      if (!counts(p.x.mask, p.factors, b)) continue;
      const float factor = p.factors[b];
      tile.sample = b;
      make_tile(team, shared.panels, p.x, tile);
      team.apart([&](int, Registers &mine) {
        PRIVKT_UNROLLED
        for (int i = 0; i < kCell; ++i) {
          PRIVKT_UNROLLED
          for (int j = 0; j < kCell; ++j) mine.total[i][j] += term<Out>(factor * mine.tile.sum[i][j], p.scale, most);
        }
      });
    }
    team.apart([&](int thread, Registers &mine) {
      entries(p, tile, thread, mine.total, [](Out *out, double total) { end(out, total); });
    });
  }
};

template <typename Launch>
static int clipped_product_sum(const Launch &launch, const Products &x, const float *factors, void *out, Element out_element,
                               int64_t out_stride, double scale) {
  if (x.batch == 0 || x.steps == 0) return 0;
  return with_out(out, out_element, [&](auto *to) {
    return launch(ProductSum<std::remove_pointer_t<decltype(to)>>{x, factors, to, out_stride, scale});
  });
}

// Where the threads' entries can be read by others: columns[i][j] of the tile, the last column only keeps banks apart.
struct TileShared {
  Panels panels;
  float tile[kSide][kSide + 1];
};

struct ColumnRegisters {
  TileRegisters tile;
  double column;  // of threads below kSide: the sum of one column's terms
};

template <typename Team>
PRIVKT_BLOCK_FN void show_tile(Team &team, TileShared &shared) {
  team.each([&](int thread, auto &mine) {
    PRIVKT_UNROLLED
    for (int i = 0; i < kCell; ++i) {
      PRIVKT_UNROLLED
      for (int j = 0; j < kCell; ++j) {
        shared.tile[kCell * (thread / kAcross) + i][kCell * (thread % kAcross) + j] = mine.tile.sum[i][j];
      }
    }
  });
}

// columns[b, j] = sum of row b[i, j]^2 by ascending i, as on the CPU; one block for 64 columns of a sample. Where tiles are
// chosen T is long, so that a column's chain of float64 additions is short beside the making of its entries.
struct ColumnSquares {
  static constexpr int kThreads = kTileThreads;
  using Shared = TileShared;
  using Registers = ColumnRegisters;
  Products x;
  double *columns;

  int64_t blocks() const { return x.batch * parts_of(x.right.width, kSide); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const ColumnSquares &p, Team &team, Shared &shared, int64_t block) {
    const int64_t across = (p.x.right.width + kSide - 1) / kSide;
    Tile tile = {block / across, 0, block % across * kSide};
    if (!in_mask(p.x.mask, tile.sample)) return;
    team.apart([&](int, Registers &mine) { mine.column = 0.0; });
    for (; tile.row < p.x.left.width; tile.row += kSide) {
      make_tile(team, shared.panels, p.x, tile);
      show_tile(team, shared);
      team.apart([&](int thread, Registers &mine) {
        if (thread >= kSide) return;
        const int rows = int(smaller(kSide, p.x.left.width - tile.row));
        for (int i = 0; i < rows; ++i) {
          const double value = shared.tile[i][thread];
          mine.column += value * value;
        }
      });
    }
    team.apart([&](int thread, Registers &mine) {
      const int64_t column = tile.column + thread;
      if (thread < kSide && column < p.x.right.width) p.columns[tile.sample * p.x.right.width + column] = mine.column;
    });
  }
};

// workspace: [batch, d].
template <typename Launch>
static int product_sqnorms_tiles(const Launch &launch, const Products &x, double *sqnorms, bool accumulate, double *workspace) {
  const double up = 1.0 + (double(x.left.width) + double(x.right.width) + 16.0) * 0x1p-52;
  const int failed = launch(ColumnSquares{x, workspace});
  return failed != 0 ? failed : launch(Join{workspace, x.batch, x.right.width, up, x.mask, sqnorms, accumulate});
}

}  // namespace privkt::blocks

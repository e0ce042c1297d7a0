// <E, H> of a weight that is an embedding and a head at once, from the rows of H that the sample's ids touch, in tiles of
// products.h: the same float32 entries that the sums add (docs/proofs/kernels.md).
#pragma once

#include "privkt/blocks/embeddings.h"
#include "privkt/blocks/products.h"

namespace privkt::blocks {

// columns[b, j] = sum of E[w, j] H[w, j] by ascending ids w, as on the CPU; one block for 64 columns of a sample. Row i of a
// tile is the i-th of the sorted places; those where no id begins are made and not used.
struct ColumnCrosses {
  static constexpr int kThreads = kTileThreads;
  using Shared = TileShared;
  using Registers = ColumnRegisters;
  Lookups x;         // sorted sample by sample
  Products touched;  // left [batch, places, x.steps], right [batch, places, x.width]
  double *columns;   // [batch, x.width]

  int64_t blocks() const { return x.batch * parts_of(x.width, kSide); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const ColumnCrosses &p, Team &team, Shared &shared, int64_t block) {
    Lookups x = p.x;
    const int64_t across = (x.width + kSide - 1) / kSide;
    Tile tile = {block / across, 0, block % across * kSide};
    if (!in_mask(x.mask, tile.sample)) return;
    x.ids += tile.sample * x.steps;
    x.places += tile.sample * x.steps;
    team.apart([&](int, Registers &mine) { mine.column = 0.0; });
    for (; tile.row < x.steps; tile.row += kSide) {
      make_tile(team, shared.panels, p.touched, tile);
      show_tile(team, shared);
      team.apart([&](int thread, Registers &mine) {
        const int64_t column = tile.column + thread, rows = smaller(kSide, x.steps - tile.row);
        if (thread >= kSide || column >= x.width) return;
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t from = tile.row + i;
          if (!begins(x.ids, from) || x.ids[from] == x.padding) continue;
          const float row = segment_sum(x, tile.sample, 0, from, run_end(x.ids, from, x.steps), column);
          mine.column += double(row) * double(shared.tile[i][thread]);
        }
      });
    }
    team.apart([&](int thread, Registers &mine) {
      const int64_t column = tile.column + thread;
      if (thread < kSide && column < x.width) p.columns[tile.sample * x.width + column] = mine.column;
    });
  }
};

// workspace: [batch, x.width].
template <typename Launch>
static int tied_cross(const Launch &launch, const Lookups &x, const Products &touched, double *crosses, double *workspace) {
  const int failed = launch(ColumnCrosses{x, touched, workspace});
  return failed != 0 ? failed : launch(Join{workspace, x.batch, x.width, 1.0, x.mask, crosses, false});
}

}  // namespace privkt::blocks

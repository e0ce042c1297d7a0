// Rows R_b = left_b^T right_b that are never written: their clipped sum, and their norms from the same register tiles.
#include "terms.h"
#include "tiles.h"

namespace privkt::PRIVKT_ISA {

namespace {

// A block of the row is made from packed panels in a near cache; a longer sequence comes in chunks, between which the block's
// tiles wait in the workspace. Tile shapes of every instruction set divide the block's sides.
constexpr int64_t kBlock = kProductBlock, kChunk = kProductChunk;
static_assert(kBlock % kTileRows == 0 && kBlock % kTileCols == 0, "blocks must consist of whole tiles");

struct Workspace {
  float *left, *right, *tiles;
  double *sums;
  explicit Workspace(float *memory)
      : left(memory),
        right(left + kChunk * kBlock),
        tiles(right + kChunk * kBlock),
        sums(reinterpret_cast<double *>(tiles + kBlock * kBlock)) {}
};

struct Block {
  int64_t row, rows, column, columns;  // of [p, d]
};

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls use(tile, row, rows, column, columns), places within the block, for each tile of the block of R_b; the tiles of one
// panel of columns come by ascending rows. `right_ready`: the panels of the right side are still there from the last call.
template <typename Use>
void block_of_row(const Products &x, int64_t b, const Block &block, bool right_ready, const Workspace &work, Use use) {
  for (int64_t step = 0; step < x.steps; step += kChunk) {
    const int64_t steps = smaller(kChunk, x.steps - step);
    const bool first = step == 0, last = step + steps == x.steps, alone = first && last;
    pack<kTileRows>(x.left, b, step, steps, block.row, block.rows, work.left);
    if (!(alone && right_ready)) pack<kTileCols>(x.right, b, step, steps, block.column, block.columns, work.right);
    float *tile = work.tiles;
    for (int64_t column = 0; column < block.columns; column += kTileCols) {
      for (int64_t row = 0; row < block.rows; row += kTileRows) {
        multiply_tile(work.left + row * steps, work.right + column * steps, steps, first, tile);
        if (last) use(tile, row, smaller(kTileRows, block.rows - row), column, smaller(kTileCols, block.columns - column));
        if (!alone) tile += kTile;
      }
    }
  }
}

template <typename Term>
static inline void add_tile(const float *tile, float factor, int64_t rows, int64_t columns, double *sums, int64_t stride, Term term) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) sums[i * stride + j] += term(factor * tile[i * kTileCols + j]);
  }
}

template <typename Term>
void add_samples(const Products &x, const float *factors, const Block &block, double *sums, int64_t stride, const Workspace &work,
                 Term term) {
  for (int64_t b = 0; b < x.batch; ++b) {
    if (!counts(x.mask, factors, b)) continue;
    const float factor = factors[b];
    block_of_row(x, b, block, false, work, [&](const float *tile, int64_t row, int64_t rows, int64_t column, int64_t columns) {
      double *at = sums + row * stride + column;
      if (rows == kTileRows && columns == kTileCols) {
        add_tile(tile, factor, kTileRows, kTileCols, at, stride, term);
      } else {
        add_tile(tile, factor, rows, columns, at, stride, term);
      }
    });
  }
}

// Column j's squares are added by ascending rows, then columns go to partials j % kLanes that meet in one order: the same
// bits for every tile shape. Squares of float32 are exact in float64; the last factor makes the sum an upper bound.
constexpr int kLanes = 32;
static_assert(kBlock % kLanes == 0, "a block's columns must begin at lane 0");

double row_sqnorm(const Products &x, int64_t b, const Workspace &work) {
  double partial[kLanes] = {};
  double *sums = work.sums;
  for (int64_t column = 0; column < x.right.width; column += kBlock) {
    const int64_t columns = smaller(kBlock, x.right.width - column);
    for (int64_t j = 0; j < columns; ++j) sums[j] = 0.0;
    for (int64_t row = 0; row < x.left.width; row += kBlock) {
      const Block block = {row, smaller(kBlock, x.left.width - row), column, columns};
      block_of_row(x, b, block, row > 0, work, [&](const float *tile, int64_t, int64_t rows, int64_t first, int64_t count) {
        double here[kTileCols] = {};
        for (int64_t j = 0; j < count; ++j) here[j] = sums[first + j];
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < kTileCols; ++j) {
            const double value = tile[i * kTileCols + j];
            here[j] += value * value;
          }
        }
        for (int64_t j = 0; j < count; ++j) sums[first + j] = here[j];
      });
    }
    for (int64_t j = 0; j < columns; ++j) partial[j % kLanes] += sums[j];
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0] * (1.0 + (double(x.left.width) + double(x.right.width) + 16.0) * 0x1p-52);
}

}  // namespace

void product_sqnorms_tiles(const Products &x, double *sqnorms, bool accumulate, float *workspace) {
  const Workspace work(workspace);
  for (int64_t b = 0; b < x.batch; ++b) {
    const bool counts = x.mask == nullptr || x.mask[b] != 0;
    const double sqnorm = counts ? row_sqnorm(x, b, work) : 0.0;
    sqnorms[b] = accumulate ? sqnorms[b] + sqnorm : sqnorm;
  }
}

bool clipped_product_sum(const Products &x, const float *factors, void *out, Element out_element, int64_t out_stride, double scale,
                         float *workspace) {
  const Workspace work(workspace);
  bool fits = true;
  const Cells cells = {scale, most_product(counting(x.mask, factors, x.batch), scale)};
  for (int64_t row = 0; row < x.left.width; row += kBlock) {
    for (int64_t column = 0; column < x.right.width; column += kBlock) {
      const Block block = {row, smaller(kBlock, x.left.width - row), column, smaller(kBlock, x.right.width - column)};
      const int64_t at = row * out_stride + column;
      if (out_element == Element::float64) {
        add_samples(x, factors, block, static_cast<double *>(out) + at, out_stride, work, AsIs{});
        continue;
      }
      for (int64_t i = 0; i < block.rows * kBlock; ++i) work.sums[i] = 0.0;
      if (out_element == Element::int64) {  // exact: whole numbers that stay within 2^53
        add_samples(x, factors, block, work.sums, kBlock, work, cells);
      } else {
        add_samples(x, factors, block, work.sums, kBlock, work, AsIs{});
      }
      for (int64_t i = 0; i < block.rows; ++i) {
        const double *sums = work.sums + i * kBlock;
        if (out_element == Element::int64) {
          fits &= add_whole(sums, block.columns, static_cast<int64_t *>(out) + at + i * out_stride);
        } else {
          float *to = static_cast<float *>(out) + at + i * out_stride;
          for (int64_t j = 0; j < block.columns; ++j) to[j] = float(double(to[j]) + sums[j]);
        }
      }
    }
  }
  return fits;
}

}  // namespace privkt::PRIVKT_ISA

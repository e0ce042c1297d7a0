// <E, H> of a weight that is an embedding and a head at once, from the rows of H that the sample's ids touch: the same float32
// entries that the sums add, so that no rounding lies between them (docs/proofs/kernels.md).
#include "segments.h"
#include "tiles.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kLanes = 32;

struct Workspace {
  double *sums;
  float *left, *right, *tile, *row;
  Workspace(float *memory, int64_t steps, int64_t width)
      : sums(reinterpret_cast<double *>(memory)),
        left(memory + 2 * width),
        right(left + steps * kTileRows),
        tile(right + steps * ((width + kTileCols - 1) / kTileCols * kTileCols)),
        row(tile + kTile) {}
};
static_assert(kTileRows <= 16 && kTileCols <= 32 && kTile <= 16 * 32, "tied_workspace must have room");

// sums[j] += E[w, j] H[w, j] for the ids w of up to kTileRows segments, in their order.
template <typename T>
void add_dots(const Lookups &x, const Products &head, const Segment *segments, const int64_t *positions, int count,
              const Workspace &work) {
  const float *touched = static_cast<const float *>(head.left.data) + segments[0].sample * head.left.sample_stride;
  for (int64_t t = 0; t < head.steps; ++t) {
    for (int k = 0; k < kTileRows; ++k) {
      work.left[t * kTileRows + k] = k < count ? touched[t * head.left.step_stride + positions[k]] : 0.0f;
    }
  }
  for (int64_t first = 0; first < x.width; first += kTileCols) {
    const Columns columns = {first, x.width - first < kTileCols ? x.width - first : kTileCols};
    multiply_tile(work.left, work.right + first * head.steps, head.steps, true, work.tile);
    for (int k = 0; k < count; ++k) {
      add_steps<T>(x, segments[k], columns, work.row);
      const float *product = work.tile + k * kTileCols;
      for (int64_t j = 0; j < columns.count; ++j) work.sums[first + j] += double(work.row[j]) * double(product[j]);
    }
  }
}

// Column j's terms are added by ascending ids, then columns go to partials j % kLanes that meet in one order: the same bits
// for every tile shape.
template <typename T>
double cross(const Lookups &x, const Products &head, int64_t sample, const Workspace &work) {
  const int64_t *ids = x.ids + sample * x.steps, *places = x.places + sample * x.steps;
  pack<kTileCols>(head.right, sample, 0, head.steps, 0, x.width, work.right);
  for (int64_t j = 0; j < x.width; ++j) work.sums[j] = 0.0;
  Segment segments[kTileRows];
  int64_t positions[kTileRows];
  int waiting = 0;
  for (int64_t from = 0, end = 0; from < x.steps; from = end) {
    end = run_end(ids, from, x.steps);
    if (ids[from] != x.padding) {
      segments[waiting] = {places + from, end - from, sample, 0};
      positions[waiting++] = from;
    }
    if (waiting == kTileRows || (waiting > 0 && end == x.steps)) {
      add_dots<T>(x, head, segments, positions, waiting, work);
      waiting = 0;
    }
  }
  double partial[kLanes] = {};
  for (int64_t j = 0; j < x.width; ++j) partial[j % kLanes] += work.sums[j];
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

}  // namespace

void tied_cross(const Lookups &x, const Products &head, double *crosses, float *workspace) {
  const Workspace work(workspace, head.steps, x.width);
  for (int64_t b = 0; b < x.batch; ++b) {
    const bool counted = x.mask == nullptr || x.mask[b] != 0;
    crosses[b] = !counted                         ? 0.0
                 : x.element == Element::bfloat16 ? cross<uint16_t>(x, head, b, work)
                                                  : cross<float>(x, head, b, work);
  }
}

}  // namespace privkt::PRIVKT_ISA

// Products of int8 vectors by AMX's tiles: 32 queries and 32 words, 64 elements a step.
//
// Left, [steps][32][64 bytes]: rows of queries. Right, [lanes][32] of four bytes as for VNNI: 16 lanes of a step are the rows of a
// tile. Both signs are taken as they are, so nothing is shifted. Tests compile this file with the tiles played in plain C++.
#pragma once

#if defined(PRIVKT_PLAYED_AMX)
#include PRIVKT_PLAYED_AMX
#endif

#define PRIVKT_AMX 1

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kTileRows = 16, kTileLanes = 16;

// Tiles 0..3: sums; 4, 5: queries; 6, 7: words; all 16 rows of 64 bytes. A thread's tiles may be someone else's: they get their
// shapes back, or are released where they had none.
class TileScope {
 public:
  TileScope() {
    _tile_storeconfig(before_);
    alignas(64) uint8_t shapes[64] = {1};
    for (int tile = 0; tile < 8; ++tile) {
      shapes[16 + 2 * tile] = 4 * kTileLanes;
      shapes[48 + tile] = kTileRows;
    }
    _tile_loadconfig(shapes);
  }
  ~TileScope() {
    if (before_[0] == 0) {
      _tile_release();
    } else {
      _tile_loadconfig(before_);
    }
  }
  TileScope(const TileScope &) = delete;
  TileScope &operator=(const TileScope &) = delete;

 private:
  alignas(64) uint8_t before_[64];
};

// sums[i * 32 + j] = <query i, word j>.
inline void product_tile(const int32_t *left, const int32_t *right, int64_t lanes, int32_t *sums) {
  constexpr int64_t row = 4 * kTileLanes, both = 2 * row;  // bytes
  asm volatile("" ::: "memory");  // gcc's tile loads do not say that they read memory
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t t = 0; t < lanes; t += kTileLanes) {
    const int32_t *queries = left + t * 2 * kTileRows, *words = right + t * 2 * kTileLanes;
    _tile_loadd(4, queries, row);
    _tile_loadd(6, words, both);
    _tile_loadd(7, words + kTileLanes, both);
    _tile_loadd(5, queries + kTileRows * kTileLanes, row);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, sums, both);
  _tile_stored(1, sums + kTileLanes, both);
  _tile_stored(2, sums + 2 * kTileRows * kTileLanes, both);
  _tile_stored(3, sums + 2 * kTileRows * kTileLanes + kTileLanes, both);
  asm volatile("" ::: "memory");
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

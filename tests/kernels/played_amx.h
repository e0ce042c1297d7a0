// AMX's tiles in plain C++, as Intel's manual describes the instructions (volume 2): what the kernels of tiles are compiled with
// where no processor has them. What would raise a fault ends the program.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace played {

struct Tiles {
  uint8_t shapes[64] = {};
  uint8_t data[8][16][64] = {};
  int rows(int tile) const { return shapes[48 + tile]; }
  int bytes(int tile) const { return shapes[16 + 2 * tile] | shapes[17 + 2 * tile] << 8; }
};

inline thread_local Tiles tiles;

inline void need(bool holds, const char *rule) {
  if (holds) return;
  fprintf(stderr, "played tiles: %s\n", rule);
  exit(3);
}

inline void configured(int tile) {
  need(tiles.shapes[0] == 1, "a tile was used without a palette");
  need(tiles.rows(tile) > 0 && tiles.bytes(tile) > 0, "a tile was used without a shape");
}

// LDTILECFG: palette, start row, 14 bytes reserved, 16 widths in bytes, 16 numbers of rows. All tiles become zero.
inline void load_shapes(const void *from) {
  Tiles made;
  memcpy(made.shapes, from, 64);
  need(made.shapes[0] <= 1, "the palette must be 0 or 1");
  for (int i = 2; i < 16; ++i) need(made.shapes[i] == 0, "reserved bytes must be 0");
  for (int i = 32; i < 48; ++i) need(made.shapes[i] == 0, "there are 8 tiles");
  for (int i = 56; i < 64; ++i) need(made.shapes[i] == 0, "there are 8 tiles");
  for (int tile = 0; tile < 8; ++tile) {
    need(made.rows(tile) <= 16 && made.bytes(tile) <= 64, "a tile has at most 16 rows of 64 bytes");
    need((made.rows(tile) == 0) == (made.bytes(tile) == 0), "rows and bytes of a tile must both be 0 or neither");
  }
  if (made.shapes[0] == 0) memset(made.shapes, 0, 64);
  tiles = made;
}

inline void store_shapes(void *to) { memcpy(to, tiles.shapes, 64); }

inline void release() { tiles = Tiles(); }

inline void zero(int tile) {
  configured(tile);
  memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

// TILELOADD: rows `stride` bytes apart; what lies beyond a tile's shape becomes zero.
inline void load(int tile, const void *base, int64_t stride) {
  zero(tile);
  for (int r = 0; r < tiles.rows(tile); ++r) {
    memcpy(tiles.data[tile][r], static_cast<const char *>(base) + r * stride, size_t(tiles.bytes(tile)));
  }
}

inline void store(int tile, void *base, int64_t stride) {
  configured(tile);
  for (int r = 0; r < tiles.rows(tile); ++r) {
    memcpy(static_cast<char *>(base) + r * stride, tiles.data[tile][r], size_t(tiles.bytes(tile)));
  }
}

// TDPBSSD: dword n of row m of c += over dwords k of a's rows, bytes i: a[m][4 k + i] * b[k][4 n + i], both signed.
inline void add_products(int c, int a, int b) {
  configured(a);
  configured(b);
  configured(c);
  need(a != b && b != c && a != c, "the three tiles must differ");
  need(tiles.rows(a) == tiles.rows(c) && tiles.bytes(b) == tiles.bytes(c), "shapes of sums must be those of their products");
  need(tiles.bytes(a) == 4 * tiles.rows(b) && tiles.bytes(c) % 4 == 0, "shapes of factors must fit");
  for (int m = 0; m < tiles.rows(c); ++m) {
    for (int n = 0; n < tiles.bytes(c) / 4; ++n) {
      uint32_t sum;
      memcpy(&sum, tiles.data[c][m] + 4 * n, 4);
      for (int k = 0; k < tiles.rows(b); ++k) {
        for (int i = 0; i < 4; ++i) {
          sum += uint32_t(int32_t(int8_t(tiles.data[a][m][4 * k + i])) * int32_t(int8_t(tiles.data[b][k][4 * n + i])));
        }
      }
      memcpy(tiles.data[c][m] + 4 * n, &sum, 4);
    }
  }
}

}  // namespace played

#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#define _tile_loadconfig(from) ::played::load_shapes(from)
#define _tile_storeconfig(to) ::played::store_shapes(to)
#define _tile_release() ::played::release()
#define _tile_zero(tile) ::played::zero(tile)
#define _tile_loadd(tile, base, stride) ::played::load(tile, base, stride)
#define _tile_stored(tile, base, stride) ::played::store(tile, base, stride)
#define _tile_dpbssd(c, a, b) ::played::add_products(c, a, b)

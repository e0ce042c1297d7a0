// The ChaCha20 block function of RFC 8439, section 2.3, one block at a time.
#pragma once

#include "privkt/portable.h"

namespace privkt {

// Noise uses the 128 bits that RFC 8439 splits into counter and nonce as (block, step): word 12 and 13 hold the block's
// index, 14 and 15 the step. Bit 63 of the index marks the extension blocks (see gaussian.h), so that no block of
// one stream is ever a block of the other.
constexpr uint64_t kExtensionBlock = uint64_t(1) << 63;

PRIVKT_FN uint32_t rotate_left(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

PRIVKT_FN void quarter_round(uint32_t x[16], int a, int b, int c, int d) {
  x[a] += x[b]; x[d] = rotate_left(x[d] ^ x[a], 16);
  x[c] += x[d]; x[b] = rotate_left(x[b] ^ x[c], 12);
  x[a] += x[b]; x[d] = rotate_left(x[d] ^ x[a], 8);
  x[c] += x[d]; x[b] = rotate_left(x[b] ^ x[c], 7);
}

// key: 8 words, input: words 12..15 of the state, out: 16 words.
PRIVKT_FN void chacha20_block(const uint32_t key[8], const uint32_t input[4], uint32_t out[16]) {
  const uint32_t start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u, key[0],   key[1],   key[2],   key[3],
                              key[4],      key[5],      key[6],      key[7],      input[0], input[1], input[2], input[3]};
  for (int i = 0; i < 16; ++i) out[i] = start[i];
  for (int round = 0; round < 10; ++round) {
    quarter_round(out, 0, 4, 8, 12);
    quarter_round(out, 1, 5, 9, 13);
    quarter_round(out, 2, 6, 10, 14);
    quarter_round(out, 3, 7, 11, 15);
    quarter_round(out, 0, 5, 10, 15);
    quarter_round(out, 1, 6, 11, 12);
    quarter_round(out, 2, 7, 8, 13);
    quarter_round(out, 3, 4, 9, 14);
  }
  for (int i = 0; i < 16; ++i) out[i] += start[i];
}

PRIVKT_FN void chacha20_block_at(const uint32_t key[8], uint64_t block, uint64_t step, uint32_t out[16]) {
  const uint32_t input[4] = {uint32_t(block), uint32_t(block >> 32), uint32_t(step), uint32_t(step >> 32)};
  chacha20_block(key, input, out);
}

}  // namespace privkt

// Permute-and-flip: first every word's coin, exactly, then one of those that fell, uniformly (csrc/cpu/flips.cpp).
//
// Which coins fell is kept as a bit a word. The choice is a chain, word after word, so that it takes the very words of key
// stream that the CPU takes: one thread a token.
#pragma once

#include "privkt/blocks/bytes.h"

namespace privkt::blocks {

// fallen[(i * tiles + n) * 8 + g]: a bit for each of the 16 words from 128 n + 16 g on; one block for 128 tokens and 128 words.
struct FlipCoins {
  static constexpr int kThreads = kByteThreads;
  static constexpr int kGroups = kPanel / 16, kPitch = kPanel + 8;  // the last columns only keep banks apart
  union Shared {
    BytePanels panels;
    uint16_t levels[kPanel][kPitch];
  };
  struct Registers {
    ByteRegisters tile;
  };
  ByteSides x;
  Levels levels;
  const int32_t *weights;
  int bits;
  NoiseKey key;
  uint64_t step, first;  // the token of query 0
  uint16_t *fallen;

  int64_t blocks() const { return parts_of(x.queries.count, kPanel) * parts_of(x.words.count, kPanel); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const FlipCoins &p, Team &team, Shared &shared, int64_t block) {
    const int64_t across = (p.x.queries.count + kPanel - 1) / kPanel, query = block % across * kPanel, tile = block / across;
    const int64_t tiles = (p.x.words.count + kPanel - 1) / kPanel;
    const int64_t from = tile * kPanel, to = smaller(from + kPanel, p.x.words.count);
    const auto ended = [](int, Registers &, int64_t) {};
    // the sums are looked at after all have left the panels, whose place the levels take
    stream_words<true>(team, shared.panels, p.x, query, from, to, ended, [] {});
    team.each([&](int thread, Registers &mine) {
      each_distance(mine.tile, p.x.words, from, to, thread, [&](int, int row, int column, int32_t x) {
        shared.levels[row][column] = uint16_t(level_of(x, p.levels));
      });
    });
    team.apart([&](int thread, Registers &) {
      for (int item = thread; item < kPanel * kGroups; item += kThreads) {
        const int row = item / kGroups, group = item % kGroups;
        if (query + row >= p.x.queries.count) continue;
        const int64_t word = from + group * 16;
        uint32_t coins[16], mask = 0;
        const uint64_t number = kTokenBlock | uint64_t(word / 16) << kTokenBits | (p.first + uint64_t(query + row));
        chacha20_block_at(p.key.word, number, p.step, coins);
        PRIVKT_UNROLLED
        for (int i = 0; i < 16; ++i) {
          if (word + i >= to) continue;
          const int32_t weight = p.weights[shared.levels[row][group * 16 + i]];
          mask |= uint32_t(coins[i] >> (32 - p.bits) < uint32_t(weight)) << i;
        }
        p.fallen[((query + row) * tiles + tile) * kGroups + group] = uint16_t(mask);
      }
    });
  }
};

// The n-th that fell takes the place of the one kept with probability 1/n.
struct FlipChoice {
  static constexpr int kThreads = 64;
  using Shared = Nothing;
  using Registers = Nothing;
  const uint16_t *fallen;
  int64_t tokens, groups;  // of 16 words
  NoiseKey key;
  uint64_t step, first;
  int64_t *out;

  int64_t blocks() const { return parts_of(tokens, kThreads); }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const FlipChoice &p, Team &team, Nothing &, int64_t block) {
    team.apart([&](int thread, Nothing &) {
      const int64_t token = block * kThreads + thread;
      if (token >= p.tokens) return;
      TokenStream stream = token_stream(p.key, p.step, p.first + uint64_t(token));
      stream.used = kChoiceBlock * 8;
      uint64_t count = 0;
      int64_t chosen = -1;
      for (int64_t group = 0; group < p.groups; ++group) {
        const uint32_t mask = p.fallen[token * p.groups + group];
        for (int i = 0; mask >> i != 0; ++i) {
          if ((mask >> i & 1) != 0 && uniform_below(++count, stream) == 0) chosen = group * 16 + i;
        }
      }
      p.out[token] = chosen;
    });
  }
};

// Integers of the workspace for a token: 16 bytes for 128 words.
static inline int64_t flip_space(int64_t words) { return 2 * parts_of(words, kPanel); }

template <typename Launch>
static int flip_draws(const Launch &launch, const ByteRows &words, const Levels &levels, const int32_t *weights, int bits,
                      const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset,
                      int64_t *workspace) {
  auto *fallen = reinterpret_cast<uint16_t *>(workspace);
  const int64_t rows = round_of(count, flip_space(words.count));
  for (int64_t done = 0; done < count; done += rows) {
    const ByteSides x = sides_of({words, ids + done, smaller(rows, count - done)}, words);
    const uint64_t first = offset + uint64_t(done);
    int failed = launch(FlipCoins{x, levels, weights, bits, key, step, first, fallen});
    if (failed == 0) {
      failed = launch(FlipChoice{fallen, x.queries.count, flip_space(words.count) * 4, key, step, first, out + done});
    }
    if (failed != 0) return failed;
  }
  return 0;
}

}  // namespace privkt::blocks

// Draws for words of the table by rejection from its neighbour list: the CPU's proposals, from the same words of key stream
// (csrc/cpu/rejection.cpp, docs/proofs/exponential.md), a warp for a token.
//
// Every thread has a run of the list, of which it keeps the sum, and a share of the bytes of a distance; thread 0 holds the
// stream and decides.
#pragma once

#include "privkt/blocks/bytes.h"

namespace privkt::blocks {

struct Rejection {
  static constexpr int kThreads = 32;
  struct Shared {
    TokenStream stream;
    uint64_t sum[kThreads], before[kThreads + 1];  // of each run's weights; of all runs before it
    uint64_t tail, refused_all, refused_count, refused_tail;
    int64_t place[kThreads];
    int32_t product[kThreads];
    Wide where, which, whether;
    uint64_t out, open;
    int64_t found;
    bool in_list, done;
  };
  using Registers = Nothing;
  ByteRows words;
  NeighbourList list;
  Levels levels;
  WeightTable weights;
  FixedTime fixed;
  const int64_t *ids;
  int64_t count;
  int64_t *out;
  NoiseKey key;
  uint64_t step, offset;
  int unit;  // as in ByteSides

  int64_t blocks() const { return count; }

  PRIVKT_BLOCK_FN uint64_t listed_weight(const Rejection &p, int64_t word, int64_t j) {
    return weight_at(p.weights, level_of(p.list.distances[word * p.list.k + j], p.levels));
  }

  // use(j, sum of the list's weights up to j) for the thread's run.
  template <typename Use>
  PRIVKT_BLOCK_FN void run_of(const Rejection &p, int64_t word, int thread, uint64_t sum, Use use) {
    const int64_t share = (p.list.k + kThreads - 1) / kThreads;
    for (int64_t j = thread * share; j < p.list.k && j < (thread + 1) * share; ++j) {
      sum += listed_weight(p, word, j);
      use(j, sum);
    }
  }

  PRIVKT_BLOCK_FN int32_t product_part(const Rejection &p, int64_t word, int64_t other, int thread) {
    return part_of_product(p.words.data + word * p.words.stride, p.words.data + other * p.words.stride, p.words.width, p.unit,
                           thread, kThreads);
  }

  // The weight that word `other` has beyond the list, 0 for one that is in it, from all threads' parts of the product.
  PRIVKT_BLOCK_FN uint64_t weight_beyond(const Rejection &p, const Shared &shared, int64_t word, int64_t other) {
    int32_t product = 0;
    for (int thread = 0; thread < kThreads; ++thread) product += shared.product[thread];
    const int32_t x = distance_of(p.words.bias[word], p.words.bias[other], product);
    const int64_t end = word * p.list.k + p.list.k - 1;
    const int32_t last = p.list.distances[end];
    const uint64_t listed = uint64_t((x < last) | ((x == last) & (other <= p.list.ids[end])));
    return weight_at(p.weights, level_of(x, p.levels)) & (listed - 1);
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void weigh(const Rejection &p, Team &team, Shared &shared, int64_t token, int64_t word) {
    team.each([&](int thread, Nothing &) {
      uint64_t all = 0;
      run_of(p, word, thread, 0, [&](int64_t, uint64_t sum) { all = sum; });
      shared.sum[thread] = all;
    });
    team.each([&](int thread, Nothing &) {
      if (thread != 0) return;
      uint64_t sum = 0;
      for (int n = 0; n < kThreads; ++n) {
        shared.before[n] = sum;
        sum += shared.sum[n];
      }
      shared.before[kThreads] = sum;
      shared.tail = p.list.k < p.words.count ? listed_weight(p, word, p.list.k - 1) : 0;
      shared.stream = token_stream(p.key, p.step, p.offset + uint64_t(token));
    });
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void draw(const Rejection &p, Team &team, Shared &shared, int64_t token, int64_t word) {
    const uint64_t listed = shared.before[kThreads], tail = shared.tail, count = uint64_t(p.words.count);
    do {
      team.each([&](int thread, Nothing &) {
        if (thread != 0) return;
        const uint64_t u = uniform_below(listed + count * tail, shared.stream);
        shared.in_list = u < listed;
        shared.where.high = shared.in_list ? u : (u - listed) % tail;
        shared.found = shared.in_list ? 0 : int64_t((u - listed) / tail);
      });
      team.each([&](int thread, Nothing &) {
        const uint64_t u = shared.where.high;
        if (!shared.in_list) {
          shared.product[thread] = product_part(p, word, shared.found, thread);
        } else if (u >= shared.before[thread] && u < shared.before[thread + 1]) {
          bool open = true;  // the first of the run whose stretch ends beyond u
          run_of(p, word, thread, shared.before[thread], [&](int64_t j, uint64_t sum) {
            if (open && u < sum) {
              shared.found = p.list.ids[word * p.list.k + j];
              open = false;
            }
          });
        }
      });
      team.each([&](int thread, Nothing &) {
        if (thread != 0) return;
        shared.done = shared.in_list || shared.where.high < weight_beyond(p, shared, word, shared.found);
        if (shared.done) p.out[token] = shared.found;
      });
    } while (!shared.done);
  }

  // The same operations for every word: see drawn_in_fixed_time of the CPU.
  template <typename Team>
  PRIVKT_BLOCK_FN void draw_in_fixed_time(const Rejection &p, Team &team, Shared &shared, int64_t token, int64_t word) {
    const uint64_t count = uint64_t(p.words.count), all = p.fixed.most_listed + count * p.fixed.most_tail;
    team.each([&](int thread, Nothing &) {
      if (thread != 0) return;
      shared.refused_all = refused_below(all);
      shared.refused_count = refused_below(count);
      shared.refused_tail = refused_below(p.fixed.most_tail);
      shared.out = 0;
      shared.open = ~uint64_t(0);
    });
    for (int64_t round = 0; round < p.fixed.rounds; ++round) {
      team.each([&](int thread, Nothing &) {
        if (thread != 0) return;
        shared.where = multiplied(next_word64(shared.stream), all);
        shared.which = multiplied(next_word64(shared.stream), count);
        shared.whether = multiplied(next_word64(shared.stream), p.fixed.most_tail);
      });
      team.each([&](int thread, Nothing &) {
        int64_t place = 0;
        run_of(p, word, thread, shared.before[thread], [&](int64_t, uint64_t sum) { place += sum <= shared.where.high; });
        shared.place[thread] = place;
        shared.product[thread] = product_part(p, word, int64_t(shared.which.high), thread);
      });
      team.each([&](int thread, Nothing &) {
        if (thread != 0) return;
        int64_t place = 0;
        for (int n = 0; n < kThreads; ++n) place += shared.place[n];
        const int64_t last = p.list.k - 1;
        const uint64_t near = uint64_t(p.list.ids[word * p.list.k + (place < last ? place : last)]);
        const uint64_t beyond = weight_beyond(p, shared, word, int64_t(shared.which.high));
        const bool uniform = (shared.where.low >= shared.refused_all) & (shared.which.low >= shared.refused_count) &
                             (shared.whether.low >= shared.refused_tail);
        const bool in_list = shared.where.high < shared.before[kThreads], in_tail = shared.where.high >= p.fixed.most_listed;
        const bool accepted = uniform & (in_list | (in_tail & (shared.whether.high < beyond)));
        const uint64_t from_list = uint64_t(0) - uint64_t(in_list), take = (uint64_t(0) - uint64_t(accepted)) & shared.open;
        shared.out |= take & ((from_list & near) | (~from_list & shared.which.high));
        shared.open &= ~take;
      });
    }
    team.apart([&](int thread, Nothing &) {
      if (thread != 0) return;
      const uint64_t any = multiplied(next_word64(shared.stream), count).high;
      p.out[token] = int64_t(shared.out | (shared.open & any));
    });
  }

  template <typename Team>
  PRIVKT_BLOCK_FN void run(const Rejection &p, Team &team, Shared &shared, int64_t token) {
    const int64_t word = p.ids[token];
    weigh(p, team, shared, token, word);
    if (p.fixed.rounds > 0) {
      draw_in_fixed_time(p, team, shared, token, word);
    } else {
      draw(p, team, shared, token, word);
    }
  }
};

template <typename Launch>
static int rejection_draws(const Launch &launch, const ByteRows &words, const NeighbourList &list, const Levels &levels,
                           const WeightTable &weights, const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out,
                           const NoiseKey &key, uint64_t step, uint64_t offset) {
  constexpr int64_t kMost = int64_t(1) << 30;  // blocks of a launch
  const int unit = sides_of({words, ids, count}, words).unit;
  for (int64_t done = 0; done < count; done += kMost) {
    const int64_t here = smaller(kMost, count - done);
    const int failed = launch(Rejection{words, list, levels, weights, fixed, ids + done, here, out + done, key, step,
                                        offset + uint64_t(done), unit});
    if (failed != 0) return failed;
  }
  return 0;
}

}  // namespace privkt::blocks

// The exponential mechanism for words of the table, by rejection: exact weights for the k nearest, and for all others one
// weight that none of theirs exceeds. docs/proofs/exponential.md has the argument.
#include "chacha20_lanes.h"
#include "level_sums.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kTogether = kGroups * kLanes;
static_assert(kTogether <= kListsTogether, "the lists' sums must fit the workspace");
constexpr int kAhead = 3;  // proposals whose words are fetched before their turn

struct Proposals {
  const ByteRows &words;
  const NeighbourList &list;
  const Levels &levels;
  const WeightTable &weights;
  int64_t word;
  uint64_t *summed;  // weights of the list, each with those before it
  uint64_t listed, tail;

  const int32_t *ids() const { return list.ids + word * list.k; }
  const int32_t *distances() const { return list.distances + word * list.k; }
  uint64_t farthest() const { return weight_at(weights, level_of(distances()[list.k - 1], levels)); }

  uint64_t sum_list() {
    uint64_t sum = 0;
    int32_t each[kInts];
    const LevelRule rule(levels);
    int64_t j = 0;
    for (; j + kInts <= list.k; j += kInts) {
      store_ints(each, privkt::PRIVKT_ISA::levels_of(load_ints(distances() + j), rule));
      for (int lane = 0; lane < kInts; ++lane) summed[j + lane] = sum += weight_at(weights, each[lane]);
    }
    for (; j < list.k; ++j) summed[j] = sum += weight_at(weights, level_of(distances()[j], levels));
    return sum;
  }

  void weigh() {
    listed = sum_list();
    tail = list.k < words.count ? farthest() : 0;
  }

  // Asks memory for the words that the token's first proposals will compare; whether they are refused is not looked at.
  void fetch(const uint32_t *first, int stride) const {
    for (int n = 0; n < kAhead; ++n) {
      const uint64_t word = first[2 * n * stride] | uint64_t(first[(2 * n + 1) * stride]) << 32;
      const uint64_t u = multiplied(word, listed + uint64_t(words.count) * tail).high;
      if (u < listed) return;
      const int64_t other = int64_t((u - listed) / tail);
      for (int64_t j = 0; j < words.width; j += 64) PRIVKT_PREFETCH(words.data + other * words.stride + j);
      PRIVKT_PREFETCH(words.bias + other);
    }
  }

  // The place of the list whose stretch holds u: how many end at or before it. Reads the whole list, whatever u is.
  int64_t place_of(uint64_t u) const {
    int64_t place = 0;
    for (int64_t j = 0; j < list.k; ++j) place += summed[j] <= u;
    return place;
  }

  // The weight that word `other` has beyond the list: 0 for one that is in it.
  uint64_t weight_beyond(int64_t other) const {
    const int8_t *own = words.data + word * words.stride;
    int32_t x = words.bias[word] + words.bias[other] - 2 * dot(own, words.data + other * words.stride, words.width);
    x = x > 0 ? x : 0;
    const int32_t last = distances()[list.k - 1];
    const uint64_t listed = uint64_t((x < last) | ((x == last) & (other <= ids()[list.k - 1])));
    return weight_at(weights, level_of(x, levels)) & (listed - 1);
  }
};

int64_t drawn(Proposals &proposals, TokenStream &stream) {
  const uint64_t listed = proposals.listed, tail = proposals.tail, count = uint64_t(proposals.words.count);
  while (true) {
    const uint64_t u = uniform_below(listed + count * tail, stream);
    if (u < listed) return proposals.ids()[proposals.place_of(u)];
    const uint64_t other = (u - listed) / tail, rest = (u - listed) % tail;
    if (rest < proposals.weight_beyond(int64_t(other))) return int64_t(other);
  }
}

// The same with a number of rounds that depends on nothing private, each with the same operations: bounds and divisors are
// public, a round that fails any test does what the others do. A round uses three words: where, which, and whether.
int64_t drawn_in_fixed_time(Proposals &proposals, TokenStream &stream, const FixedTime &fixed) {
  const uint64_t count = uint64_t(proposals.words.count);
  const uint64_t all = fixed.most_listed + count * fixed.most_tail;
  const uint64_t refused_all = refused_below(all), refused_count = refused_below(count), refused_tail = refused_below(fixed.most_tail);
  const uint64_t listed = proposals.listed;
  uint64_t out = 0, open = ~uint64_t(0);
  for (int64_t round = 0; round < fixed.rounds; ++round) {
    const Wide where = multiplied(next_word64(stream), all);
    const Wide which = multiplied(next_word64(stream), count);
    const Wide whether = multiplied(next_word64(stream), fixed.most_tail);
    const int64_t place = proposals.place_of(where.high), last = proposals.list.k - 1;
    const uint64_t near = uint64_t(proposals.ids()[place < last ? place : last]);
    const uint64_t beyond = proposals.weight_beyond(int64_t(which.high));
    const bool uniform = (where.low >= refused_all) & (which.low >= refused_count) & (whether.low >= refused_tail);
    const bool in_list = where.high < listed, in_tail = where.high >= fixed.most_listed;
    const bool accepted = uniform & (in_list | (in_tail & (whether.high < beyond)));
    const uint64_t from_list = uint64_t(0) - uint64_t(in_list), take = (uint64_t(0) - uint64_t(accepted)) & open;
    out |= take & ((from_list & near) | (~from_list & which.high));
    open &= ~take;
  }
  const uint64_t any = multiplied(next_word64(stream), count).high;
  return int64_t(out | (open & any));
}

}  // namespace

void rejection_draws(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                     const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key, uint64_t step,
                     uint64_t offset, int64_t *workspace) {
  uint32_t prepared[kGroups][16][kLanes];
  uint64_t sums[kTogether][2];
  for (int64_t done = 0; done < count; done += kTogether) {
    const uint64_t first = offset + uint64_t(done);
    const int here = int(count - done < kTogether ? count - done : kTogether);
    for (int i = 0; i < here; ++i) {  // a list is some lines of memory, anywhere
      const int64_t at = ids[done + i] * list.k;
      for (int64_t j = 0; j < list.k; j += 16) {
        PRIVKT_PREFETCH(list.distances + at + j);
        PRIVKT_PREFETCH(list.ids + at + j);
      }
    }
    chacha20_blocks(key, kTokenBlock | first, step, prepared);
    const auto proposals_of = [&](int i) {
      return Proposals{words, list, levels, weights, ids[done + i], reinterpret_cast<uint64_t *>(workspace) + i * list.k, 0, 0};
    };
    for (int i = 0; i < here; ++i) {
      Proposals proposals = proposals_of(i);
      proposals.weigh();
      sums[i][0] = proposals.listed;
      sums[i][1] = proposals.tail;
      if (fixed.rounds == 0) proposals.fetch(&prepared[i / kLanes][0][i % kLanes], kLanes);
    }
    for (int i = 0; i < here; ++i) {
      TokenStream stream = token_stream(key, step, first + uint64_t(i));
      stream.first = &prepared[i / kLanes][0][i % kLanes];
      stream.stride = kLanes;
      Proposals proposals = proposals_of(i);
      proposals.listed = sums[i][0];
      proposals.tail = sums[i][1];
      out[done + i] = fixed.rounds > 0 ? drawn_in_fixed_time(proposals, stream, fixed) : drawn(proposals, stream);
    }
  }
}

}  // namespace privkt::PRIVKT_ISA

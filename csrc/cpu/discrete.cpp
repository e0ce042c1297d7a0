// The discrete Gaussian (discrete_gaussian.h), many coordinates' words at a time.
#include "chacha20_lanes.h"
#include "privkt/discrete_gaussian.h"

namespace privkt::PRIVKT_ISA {

namespace {

constexpr int kPrepared = 2;  // blocks: what most coordinates need
constexpr int kTogether = kGroups * kLanes;

}  // namespace

void discrete_gaussian(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                       bool accumulate) {
  const DiscreteGaussian distribution = discrete_gaussian_of(sigma);
  uint32_t words[kPrepared][kGroups][16][kLanes];
  for (int64_t done = 0; done < count; done += kTogether) {
    const uint64_t first = offset + uint64_t(done);
    for (int number = 0; number < kPrepared; ++number) {
      chacha20_blocks(key, kDiscreteBlock | uint64_t(number) << kCoordinateBits | first, step, words[number]);
    }
    const int here = int(count - done < kTogether ? count - done : kTogether);
    for (int i = 0; i < here; ++i) {
      WordStream stream = {};
      stream.key = key.word;
      stream.step = step;
      stream.coordinate = first + uint64_t(i);
      stream.words = &words[0][i / kLanes][0][i % kLanes];
      stream.block_stride = kGroups * 16 * kLanes;
      stream.word_stride = kLanes;
      stream.prepared = kPrepared;
      const int64_t x = draw(distribution, stream);
      out[done + i] = accumulate ? out[done + i] + x : x;
    }
  }
}

}  // namespace privkt::PRIVKT_ISA

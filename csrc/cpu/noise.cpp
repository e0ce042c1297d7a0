// Gaussian noise from ChaCha20, correctly rounded (gaussian.h).
#include "isa.h"
#include "privkt/gaussian.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Blocks computed side by side: one block a vector lane. The width changes nothing but speed.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if defined(__GNUC__)
typedef uint32_t Lanes __attribute__((vector_size(4 * kLanes)));
#else
struct Lanes {
  uint32_t lane[kLanes];
  uint32_t &operator[](int i) { return lane[i]; }
};
static inline Lanes operator+(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] += b[i]; return a; }
static inline Lanes operator^(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] ^= b[i]; return a; }
static inline Lanes operator|(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a[i] |= b[i]; return a; }
static inline Lanes operator<<(Lanes a, int n) { for (int i = 0; i < kLanes; ++i) a[i] <<= n; return a; }
static inline Lanes operator>>(Lanes a, int n) { for (int i = 0; i < kLanes; ++i) a[i] >>= n; return a; }
#endif

static inline Lanes rotated(Lanes x, int n) { return (x << n) | (x >> (32 - n)); }

static inline Lanes splat(uint32_t word) {
  Lanes v;
  for (int i = 0; i < kLanes; ++i) v[i] = word;
  return v;
}

static inline void lanes_quarter_round(Lanes &a, Lanes &b, Lanes &c, Lanes &d) {
  a = a + b; d = rotated(d ^ a, 16);
  c = c + d; b = rotated(b ^ c, 12);
  a = a + b; d = rotated(d ^ a, 8);
  c = c + d; b = rotated(b ^ c, 7);
}

// Blocks first, first + 1, ... for kLanes of them: out[w][lane] is word w of block first + lane.
void blocks(const NoiseKey &key, uint64_t first, uint64_t step, uint32_t out[16][kLanes]) {
  Lanes start[16], x[16];
  const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
  for (int i = 0; i < 4; ++i) start[i] = splat(constants[i]);
  for (int i = 0; i < 8; ++i) start[4 + i] = splat(key.word[i]);
  for (int i = 0; i < kLanes; ++i) {
    start[12][i] = uint32_t(first + uint64_t(i));
    start[13][i] = uint32_t((first + uint64_t(i)) >> 32);
  }
  start[14] = splat(uint32_t(step));
  start[15] = splat(uint32_t(step >> 32));
  for (int i = 0; i < 16; ++i) x[i] = start[i];
  for (int round = 0; round < 10; ++round) {
    lanes_quarter_round(x[0], x[4], x[8], x[12]);
    lanes_quarter_round(x[1], x[5], x[9], x[13]);
    lanes_quarter_round(x[2], x[6], x[10], x[14]);
    lanes_quarter_round(x[3], x[7], x[11], x[15]);
    lanes_quarter_round(x[0], x[5], x[10], x[15]);
    lanes_quarter_round(x[1], x[6], x[11], x[12]);
    lanes_quarter_round(x[2], x[7], x[8], x[13]);
    lanes_quarter_round(x[3], x[4], x[9], x[14]);
  }
  for (int word = 0; word < 16; ++word) {
    x[word] = x[word] + start[word];
    memcpy(out[word], &x[word], sizeof x[word]);
  }
}

constexpr int kBlocks = 64;  // a multiple of every kLanes; 4 KiB of key stream at a time
constexpr int kPairs = 4 * kBlocks;
constexpr int kNormals = 8 * kBlocks;

struct Tile {
  uint32_t words[kBlocks / kLanes][16][kLanes];
  uint64_t radius[kPairs], angle[kPairs];
  double normal[2][kPairs];
  double limit[kPairs];  // error bound of the pair in units of sigma, infinite where the fast path does not hold
};

void fill(Tile &tile, const NoiseKey &key, uint64_t first_block, uint64_t step) {
  for (int group = 0; group < kBlocks / kLanes; ++group) {
    uint32_t(&words)[16][kLanes] = tile.words[group];
    blocks(key, first_block + uint64_t(group * kLanes), step, words);
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int pair = 0; pair < 4; ++pair) {  // as uniforms_of does for one block
        const int p = 4 * (group * kLanes + lane) + pair;
        tile.radius[p] = words[4 * pair][lane] | uint64_t(words[4 * pair + 1][lane]) << 32;
        tile.angle[p] = words[4 * pair + 2][lane] | uint64_t(words[4 * pair + 3][lane]) << 32;
      }
    }
  }
  for (int p = 0; p < kPairs; ++p) {
    const FastPair pair = fast_normals(tile.radius[p], tile.angle[p]);
    tile.normal[0][p] = pair.first;
    tile.normal[1][p] = pair.second;
    tile.limit[p] = pair.in_range ? kFastError : HUGE_VAL;
  }
}

static inline double base_at(const void *base, Element element, int64_t i) {
  if (base == nullptr) return 0.0;
  return element == Element::float64 ? static_cast<const double *>(base)[i] : double(static_cast<const float *>(base)[i]);
}

}  // namespace

void noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
           uint64_t offset) {
  if (!(sigma > 0.0)) {
    for (int64_t i = 0; i < count; ++i) out[i] = float(base_at(base, base_element, i));
    return;
  }
  Tile tile;
  double sum[kNormals];
  float low[kNormals], high[kNormals];
  int64_t done = 0;
  while (done < count) {
    const uint64_t index = offset + uint64_t(done);
    const int skip = int(index % kNormalsPerBlock);
    const int64_t here = count - done < kNormals - skip ? count - done : kNormals - skip;
    fill(tile, key, index / kNormalsPerBlock, step);
    for (int64_t i = 0; i < here; ++i) sum[skip + i] = base_at(base, base_element, done + i);
    for (int i = 0; i < skip; ++i) sum[i] = 0.0;
    for (int i = skip + int(here); i < kNormals; ++i) sum[i] = 0.0;
    for (int p = 0; p < kPairs; ++p) {
      for (int which = 0; which < 2; ++which) {
        const double t = sum[2 * p + which] + sigma * tile.normal[which][p];
        const double error = sigma * tile.limit[p] + fabs(t) * kSumError;
        low[2 * p + which] = float(t - error);
        high[2 * p + which] = float(t + error);
      }
    }
    for (int64_t i = 0; i < here; ++i) {
      const int at = skip + int(i);
      float value = high[at];
      if (low[at] != value) {
        value = fabs(sum[at]) <= 0x1.fffffffffffffp1023 ? exact_noise_cpu(key, step, index + uint64_t(i), sum[at], sigma) : float(sum[at]);
      }
      out[done + i] = value;
    }
    done += here;
  }
}

}  // namespace privkt::PRIVKT_ISA

// Gaussian noise from ChaCha20, correctly rounded (gaussian.h).
#include <type_traits>

#include "chacha20_lanes.h"
#include "privkt/gaussian.h"
#include "quick_normals.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Lanes of two rows of words joined to 64 bits, kWidth at a time; lane i is of block `block_of(part, i)`.
constexpr int block_of(int part, int lane) { return kWidth == 1 ? part : 4 * (lane / 2) + 2 * part + lane % 2; }

static inline Words joined(const uint32_t low[kLanes], const uint32_t high[kLanes], int part) {
#if defined(__AVX512F__)
  const __m512i a = _mm512_loadu_si512(low), b = _mm512_loadu_si512(high);
  return (Words)(part == 0 ? _mm512_unpacklo_epi32(a, b) : _mm512_unpackhi_epi32(a, b));
#elif defined(__AVX2__)
  const __m256i a = load_vector<__m256i>(low), b = load_vector<__m256i>(high);
  return (Words)(part == 0 ? _mm256_unpacklo_epi32(a, b) : _mm256_unpackhi_epi32(a, b));
#else
  uint64_t each[kWidth];
  for (int i = 0; i < kWidth; ++i) each[i] = low[block_of(part, i)] | uint64_t(high[block_of(part, i)]) << 32;
  return load_vector<Words>(each);
#endif
}

// z[q][lane] to place q of the lane's block.
static inline void put(const Reals z[kNormalsPerBlock], int part, double *normals) {
#if defined(__AVX512F__)
  __m512d pair[8], four[8];
  for (int q = 0; q < 8; q += 2) {
    pair[q] = _mm512_unpacklo_pd((__m512d)z[q], (__m512d)z[q + 1]);      // even lanes
    pair[q + 1] = _mm512_unpackhi_pd((__m512d)z[q], (__m512d)z[q + 1]);  // odd lanes
  }
  for (int odd = 0; odd < 2; ++odd) {
    four[odd] = _mm512_shuffle_f64x2(pair[odd], pair[2 + odd], 0x88);          // lanes 0 and 4 of z0..z3
    four[2 + odd] = _mm512_shuffle_f64x2(pair[odd], pair[2 + odd], 0xdd);      // lanes 2 and 6
    four[4 + odd] = _mm512_shuffle_f64x2(pair[4 + odd], pair[6 + odd], 0x88);  // the same of z4..z7
    four[6 + odd] = _mm512_shuffle_f64x2(pair[4 + odd], pair[6 + odd], 0xdd);
    for (int lane = 0; lane < 8; lane += 2) {
      const __m512d a = four[lane % 4 + odd], b = four[4 + lane % 4 + odd];
      const __m512d row = lane < 4 ? _mm512_shuffle_f64x2(a, b, 0x88) : _mm512_shuffle_f64x2(a, b, 0xdd);
      _mm512_storeu_pd(normals + kNormalsPerBlock * block_of(part, lane + odd), row);
    }
  }
#elif defined(__AVX2__)
  for (int q = 0; q < 8; q += 4) {
    for (int odd = 0; odd < 2; ++odd) {
      const __m256d a = odd ? _mm256_unpackhi_pd((__m256d)z[q], (__m256d)z[q + 1]) : _mm256_unpacklo_pd((__m256d)z[q], (__m256d)z[q + 1]);
      const __m256d b = odd ? _mm256_unpackhi_pd((__m256d)z[q + 2], (__m256d)z[q + 3]) : _mm256_unpacklo_pd((__m256d)z[q + 2], (__m256d)z[q + 3]);
      _mm256_storeu_pd(normals + kNormalsPerBlock * block_of(part, odd) + q, _mm256_permute2f128_pd(a, b, 0x20));
      _mm256_storeu_pd(normals + kNormalsPerBlock * block_of(part, 2 + odd) + q, _mm256_permute2f128_pd(a, b, 0x31));
    }
  }
#else
  for (int q = 0; q < kNormalsPerBlock; ++q) {
    double each[kWidth];
    store_vector(each, z[q]);
    for (int i = 0; i < kWidth; ++i) normals[kNormalsPerBlock * block_of(part, i) + q] = each[i];
  }
#endif
}

constexpr int kTile = kGroups * kLanes * kNormalsPerBlock;  // coordinates at a time

struct Tile {
  uint32_t words[kGroups][16][kLanes];
  double normals[kTile + kWidth];  // NaN where the quick path does not hold
};

void fill(Tile &tile, const NoiseKey &key, uint64_t first_block, uint64_t step) {
  chacha20_blocks(key, first_block, step, tile.words);
  for (int g = 0; g < kGroups; ++g) {
    for (int part = 0; part < kLanes / kWidth; ++part) {
      Reals z[kNormalsPerBlock];
      for (int pair = 0; pair < 4; ++pair) {  // as uniforms_of does for one block
        const uint32_t(*words)[kLanes] = tile.words[g] + 4 * pair;
        const QuickNormals quick = quick_pair(joined(words[0], words[1], part), joined(words[2], words[3], part));
        z[2 * pair] = quick.first;
        z[2 * pair + 1] = quick.second;
      }
      put(z, part, tile.normals + g * kLanes * kNormalsPerBlock);
    }
  }
}

// What a stretch of coordinates has in common.
struct Stretch {
  const NoiseKey &key;
  uint64_t step;
  double sigma;
};

// The value of place `at` in a tile, where the quick path could not decide it.
float settled(const Stretch &stretch, const Tile &tile, uint64_t index, int at, double base) {
  if (!(fabs(base) <= 0x1.fffffffffffffp1023)) return float(base);
  uint32_t block[16];
  const int number = at / kNormalsPerBlock;
  for (int word = 0; word < 16; ++word) block[word] = tile.words[number / kLanes][word][number % kLanes];
  const Uniforms uniforms = uniforms_of(block, at / 2 % 4);
  float value;
  if (fast_noise(fast_normals(uniforms.radius, uniforms.angle), at % 2, base, stretch.sigma, &value)) return value;
  return exact_noise_cpu(stretch.key, stretch.step, index, base, stretch.sigma);
}

struct Nothing {};
static inline Reals base_vector(const Nothing *, int64_t) { return splat(0.0); }
static inline Reals base_vector(const double *base, int64_t i) { return load_vector<Reals>(base + i); }
static inline Reals base_vector(const float *base, int64_t i) { return widen(load_vector<Floats>(base + i)); }
static inline double base_at(const Nothing *, int64_t) { return 0.0; }
template <typename T>
static inline double base_at(const T *base, int64_t i) { return double(base[i]); }

template <typename Base>
static inline Floats add_vector(Reals z, Reals base, double sigma, unsigned &undecided) {
  const Reals scaled = z * sigma;
  Reals t = scaled, error;
  if constexpr (std::is_same_v<Base, Nothing>) {
    error = fused(absolute(t), splat(kQuickError + kSumError), splat(sigma * kQuickFloor));
  } else {
    t = base + scaled;
    error = fused(absolute(scaled), splat(kQuickError), fused(absolute(t), splat(kSumError), splat(sigma * kQuickFloor)));
  }
  const Floats high = narrow(t + error);
  undecided = differing(narrow(t - error), high);
  return high;
}

template <typename Base>
void noise_on(float *out, const Base *base, int64_t count, const Stretch &stretch, uint64_t offset) {
  Tile tile;
  int64_t done = 0;
  while (done < count) {
    const uint64_t index = offset + uint64_t(done);
    const int skip = int(index % kNormalsPerBlock);
    const int here = int(count - done < kTile - skip ? count - done : kTile - skip);
    fill(tile, stretch.key, index / kNormalsPerBlock, stretch.step);
    const double *normals = tile.normals + skip;
    for (int i = 0; i < here; i += kWidth) {
      const int64_t at = done + i;
      const int lanes = here - i < kWidth ? here - i : kWidth;
      Reals start;
      if (lanes == kWidth) {
        start = base_vector(base, at);
      } else {
        double each[kWidth] = {};
        for (int lane = 0; lane < lanes; ++lane) each[lane] = base_at(base, at + lane);
        start = load_vector<Reals>(each);
      }
      unsigned undecided;
      const Floats values = add_vector<Base>(load_vector<Reals>(normals + i), start, stretch.sigma, undecided);
      if (lanes == kWidth && undecided == 0) {
        store_vector(out + at, values);
        continue;
      }
      float each[kWidth];
      store_vector(each, values);
      for (int lane = 0; lane < lanes; ++lane) {
        const bool known = (undecided >> lane & 1) == 0;
        out[at + lane] = known ? each[lane]
                               : settled(stretch, tile, index + uint64_t(i + lane), skip + i + lane, base_at(base, at + lane));
      }
    }
    done += here;
  }
}

template <typename Base>
void noise_or_copy(float *out, const Base *base, int64_t count, const Stretch &stretch, uint64_t offset) {
  if (stretch.sigma > 0.0) {
    noise_on(out, base, count, stretch, offset);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = float(base_at(base, i));
  }
}

}  // namespace

void noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
           uint64_t offset) {
  const Stretch stretch = {key, step, sigma};
  if (base == nullptr) {
    noise_or_copy(out, static_cast<const Nothing *>(nullptr), count, stretch, offset);
  } else if (base_element == Element::float64) {
    noise_or_copy(out, static_cast<const double *>(base), count, stretch, offset);
  } else {
    noise_or_copy(out, static_cast<const float *>(base), count, stretch, offset);
  }
}

void quick_normals(const uint64_t *radius, const uint64_t *angle, int64_t count, double *first, double *second) {
  for (int64_t i = 0; i < count; i += kWidth) {
    const size_t bytes = 8 * size_t(count - i < kWidth ? count - i : kWidth);
    uint64_t k[kWidth] = {}, j[kWidth] = {};
    memcpy(k, radius + i, bytes);
    memcpy(j, angle + i, bytes);
    const QuickNormals quick = quick_pair(load_vector<Words>(k), load_vector<Words>(j));
    memcpy(first + i, &quick.first, bytes);
    memcpy(second + i, &quick.second, bytes);
  }
}

}  // namespace privkt::PRIVKT_ISA

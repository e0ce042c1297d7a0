// Norms of rows R_b = left_b^T right_b from their steps' inner products, |R|^2 = sum over t, t' of <l_t, l_t'> <r_t, r_t'>:
// 2 T^2 (p + d) / 2 operations in place of 2 T p d, and a proven rounding term (product_bound.h).
#include "privkt/product_bound.h"
#include "tiles.h"

namespace privkt::PRIVKT_ISA {

namespace {

// Steps come in fours. 16 inner products at a time, each in kGramLanes sums: column j of the vectors goes to lane
// j % kGramLanes, and the lanes meet in one order, so that every instruction set gives the same bits.
constexpr int kSteps = 4, kEntries = kSteps * kSteps;
constexpr int kTogether = kVec == 16 ? 4 : kVec == 8 && kTileVecs == 2 ? 2 : 1;  // left rows whose sums fit the registers
static_assert(kGramLanes % kVec == 0 && kSteps % kTogether == 0, "lanes and rows must divide");

template <typename T>
struct Steps {
  const T *row[kSteps];
};

// The steps 4 k ... 4 k + 3 of a sample; beyond the last one it stands for them, and its entries are not used.
template <typename T>
Steps<T> steps_at(const Sequence &x, int64_t sample, int64_t first, int64_t count) {
  Steps<T> steps;
  for (int i = 0; i < kSteps; ++i) {
    const int64_t step = first + i < count ? first + i : count - 1;
    steps.row[i] = static_cast<const T *>(x.data) + sample * x.sample_stride + step * x.step_stride;
  }
  return steps;
}

// entries[e]: lane l adds lane l + 8, then l + 4, l + 2, l + 1. The vector forms do it for several entries side by side.
#if defined(__AVX512F__)
void meet(const float (*lanes)[kGramLanes], float *entries) {
  Vec four[kSteps];  // [entry i, i + 4, i + 8, i + 12], four lanes each
  for (int i = 0; i < kSteps; ++i) {
    Vec eight[2];
    for (int k = 0; k < 2; ++k) {
      const Vec a = load_vec(lanes[i + 8 * k]), b = load_vec(lanes[i + 8 * k + 4]);
      eight[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(eight[0], eight[1], 0x88), _mm512_shuffle_f32x4(eight[0], eight[1], 0xdd));
  }
  Vec two[2];
  for (int k = 0; k < 2; ++k) {
    const Vec a = four[2 * k], b = four[2 * k + 1];
    two[k] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  store_vec(entries, _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88), _mm512_shuffle_ps(two[0], two[1], 0xdd)));
}
#elif defined(__AVX2__) && defined(__FMA__)
void meet(const float (*lanes)[kGramLanes], float *entries) {
  for (int from = 0; from < kEntries; from += 8) {
    Vec four[kSteps];  // [entry i, i + 4], four lanes each
    for (int i = 0; i < kSteps; ++i) {
      const float *x = lanes[from + i], *y = lanes[from + i + 4];
      const Vec a = _mm256_add_ps(load_vec(x), load_vec(x + 8)), b = _mm256_add_ps(load_vec(y), load_vec(y + 8));
      four[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    Vec two[2];
    for (int k = 0; k < 2; ++k) {
      const Vec a = four[2 * k], b = four[2 * k + 1];
      two[k] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    }
    store_vec(entries + from, _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd)));
  }
}
#else
void meet(float (*lanes)[kGramLanes], float *entries) {
  for (int entry = 0; entry < kEntries; ++entry) {
    float *x = lanes[entry];
    for (int half = kGramLanes / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) x[lane] += x[lane + half];
    }
    entries[entry] = x[0];
  }
}
#endif

template <typename T>
void entries_of(const Steps<T> &one, const Steps<T> &two, int64_t width, float *entries) {
  float lanes[kEntries][kGramLanes];
  const int64_t whole = width / kGramLanes * kGramLanes;
  float rest_one[kSteps][kGramLanes], rest_two[kSteps][kGramLanes];
  for (int i = 0; whole < width && i < kSteps; ++i) {
    for (int64_t lane = 0; lane < kGramLanes; ++lane) {
      rest_one[i][lane] = whole + lane < width ? load(one.row[i], whole + lane) : 0.0f;
      rest_two[i][lane] = whole + lane < width ? load(two.row[i], whole + lane) : 0.0f;
    }
  }
  for (int lane = 0; lane < kGramLanes; lane += kVec) {
    for (int base = 0; base < kSteps; base += kTogether) {
      Vec sum[kTogether][kSteps];
      PRIVKT_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        PRIVKT_UNROLL
        for (int j = 0; j < kSteps; ++j) sum[i][j] = zero_vec();
      }
      for (int64_t at = lane; at < whole; at += kGramLanes) {
        Vec second[kSteps];
        PRIVKT_UNROLL
        for (int j = 0; j < kSteps; ++j) second[j] = load_vec(two.row[j] + at);
        PRIVKT_UNROLL
        for (int i = 0; i < kTogether; ++i) {
          const Vec first = load_vec(one.row[base + i] + at);
          PRIVKT_UNROLL
          for (int j = 0; j < kSteps; ++j) sum[i][j] = fused(first, second[j], sum[i][j]);
        }
      }
      for (int i = 0; i < kTogether; ++i) {
        for (int j = 0; j < kSteps; ++j) {
          Vec total = sum[i][j];
          if (whole < width) total = fused(load_vec(rest_one[base + i] + lane), load_vec(rest_two[j] + lane), total);
          store_vec(lanes[(base + i) * kSteps + j] + lane, total);
        }
      }
    }
  }
  meet(lanes, entries);
}

void entries_at(const Sequence &x, int64_t sample, int64_t one, int64_t two, int64_t count, float *entries) {
  if (x.element == Element::bfloat16) {
    entries_of(steps_at<uint16_t>(x, sample, one, count), steps_at<uint16_t>(x, sample, two, count), x.width, entries);
  } else {
    entries_of(steps_at<float>(x, sample, one, count), steps_at<float>(x, sample, two, count), x.width, entries);
  }
}

// Groups of steps that meet one group before the other side is read: the one group's vectors stay in the nearest cache.
constexpr int64_t kStrip = 64;

double gram_sqnorm(const Products &x, int64_t b) {
  const GramError left_error = gram_error(x.left.width), right_error = gram_error(x.right.width);
  GramSums sums = {0.0, 0.0, 0.0, 0.0};
  double below[kEntries] = {};  // by place in the group, over all pairs of groups but a group with itself: each counts twice
  float left[kStrip][kEntries], right[kEntries];
  for (int64_t one = 0; one < x.steps; one += kSteps) {
    for (int64_t strip = one; strip < x.steps; strip += kStrip * kSteps) {
      const int64_t end = strip + kStrip * kSteps < x.steps ? strip + kStrip * kSteps : x.steps;
      for (int64_t two = strip; two < end; two += kSteps) entries_at(x.left, b, one, two, x.steps, left[(two - strip) / kSteps]);
      for (int64_t two = strip; two < end; two += kSteps) {
        const float *other = left[(two - strip) / kSteps];
        entries_at(x.right, b, one, two, x.steps, right);
        if (one != two && two + kSteps <= x.steps) {
          for (int entry = 0; entry < kEntries; ++entry) below[entry] += double(other[entry]) * double(right[entry]);
          continue;
        }
        for (int i = 0; i < kSteps; ++i) {
          for (int j = one == two ? i : 0; j < kSteps; ++j) {
            if (one + i >= x.steps || two + j >= x.steps) continue;
            const int entry = i * kSteps + j;
            const double product = double(other[entry]) * double(right[entry]);
            if (one != two || i != j) {
              below[entry] += product;
              continue;
            }
            const double l = norm_above(other[entry], left_error), r = norm_above(right[entry], right_error);
            sums.sum += product;
            sums.sizes += l * r;
            sums.left += l;
            sums.right += r;
          }
        }
      }
    }
  }
  for (int entry = 0; entry < kEntries; ++entry) sums.sum += 2.0 * below[entry];
  return product_sqnorm_bound(sums, x.steps, x.left.width, x.right.width);
}

}  // namespace

void product_sqnorms_gram(const Products &x, double *sqnorms, bool accumulate) {
  for (int64_t b = 0; b < x.batch; ++b) {
    const bool counts = x.mask == nullptr || x.mask[b] != 0;
    const double sqnorm = counts ? gram_sqnorm(x, b) : 0.0;
    sqnorms[b] = accumulate ? sqnorms[b] + sqnorm : sqnorm;
  }
}

}  // namespace privkt::PRIVKT_ISA

// The kernels' C++ face: raw pointers in, nothing allocated, no torch and no Python.
//
// Rows are [batch, width], row b at rows + b * stride elements. Where a mask is given, a zero byte says that the row's
// slot is empty: it is neither read nor counted.
#pragma once

#include <cstdint>

namespace privkt {

enum class Element : int { float32 = 0, bfloat16 = 1, float64 = 2, int64 = 3 };

struct Rows {
  const void *data;
  Element element;  // float32 or bfloat16
  int64_t batch, width, stride;
  const uint8_t *mask;  // [batch], or null: every row counts
};

// Gradients of looked-up vectors: step t of sample b at grad + b * sample_stride + t * step_stride, [batch, steps, width].
// Row v of the sample's [V, width] is the float32 sum, in the order of the steps, of those whose id is v.
struct Lookups {
  const int64_t *ids, *places;  // sorted ids and where each came from, places ascending where ids are equal
  const void *grad;
  Element element;  // float32 or bfloat16
  int64_t width, sample_stride, step_stride;
  int64_t batch, steps;
  const uint8_t *mask;  // [batch], or null: every sample counts
  int64_t padding;      // the id that has no gradient; negative: none
};

// [batch, steps, width], element (b, t, j) at data + b * sample_stride + t * step_stride + j.
struct Sequence {
  const void *data;
  Element element;  // float32 or bfloat16
  int64_t width, sample_stride, step_stride;
};

// Rows that are not stored: row b is left_b^T right_b, [p, d] float32, each entry by fused multiply-adds over the steps in
// their order, from 0. p and d are the widths.
struct Products {
  Sequence left, right;
  int64_t batch, steps;
  const uint8_t *mask;  // [batch], or null: every sample counts
};

constexpr int64_t kProductBlock = 192;  // side of the block of a row that is worked on
constexpr int64_t kProductChunk = 256;  // steps at a time
// Floats of the workspace that the caller provides, aligned for doubles: two packed sides, a block's tiles, its float64 sums.
constexpr int64_t kProductWorkspace = 2 * kProductChunk * kProductBlock + 3 * kProductBlock * kProductBlock;

// Floats of tied_cross's workspace, aligned for doubles: float64 sums, packed sides, a tile and a segment.
constexpr int64_t tied_workspace(int64_t steps, int64_t width) { return 2 * width + steps * (16 + width + 32) + 16 * 32 + 32; }

struct NoiseKey {
  uint32_t word[8];
};

// Logits of some tokens, float32 [rows, columns], row i at logits + i * stride. A label below 0 says that the token does
// not count. The model maps a logit x to cap tanh(scale x / cap), or to scale x where cap is 0.
struct LogitsTile {
  float *logits;
  int64_t rows, columns, stride;
  const int64_t *labels;  // [rows]
  float scale, cap;
};

// A sum on its way to a gradient: float32(total[i] + sigma z(step, offset + i)) / divisor. An int64 total is in cells of
// `cell`.
struct NoisyMean {
  const void *total;
  Element element;  // float32, float64 or int64
  double cell, sigma;
  NoiseKey key;
  uint64_t step, offset;
  float divisor;
  bool negative;  // the gradient's sign is turned, to maximize
};

struct Weights {
  void *data;
  Element element;  // float32 or bfloat16
  int64_t count;
};

struct SgdStep {
  float rate, momentum, dampened, weight_decay;  // dampened: 1 - dampening
  bool nesterov, first;                          // first: the momentum buffer holds nothing yet
};

struct AdamStep {
  float rate, first_weight, second_decay, second_weight;  // lr / (1 - beta1^t), 1 - beta1, beta2, 1 - beta2
  float correction, root_correction, eps;                 // 1 - beta2^t and its root
  float weight_decay, shrink;                             // added to the gradient; multiplies the weight
  float noise_variance, floor;                            // 0: plain Adam
};

struct CpuKernels {
  const char *isa;
  // sqnorms[b] (+)= |rows[b]|^2 in float64; inf or NaN for rows that are not finite.
  void (*row_sqnorms)(const Rows &rows, double *sqnorms, bool accumulate);
  // Factors for rows of `width` elements whose float64 square norms are given; see factors.cpp for the bound.
  void (*clip_factors)(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                       float *factors, uint8_t *finite);
  // out (+)= sum over b of float32(factors[b] * rows[b]); out is float32 or float64, the sum inside is float64. Into int64
  // go cells of the grid (grid.h), `scale` of them a unit; false if a coordinate of it cannot be summed exactly.
  bool (*clipped_sum)(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale);
  // out[i] = float32(base[i] + sigma z(step, offset + i)); base null, float32 or float64, and may be out itself.
  void (*noise)(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key,
                uint64_t step, uint64_t offset);
  // The noise's quick path for chosen uniforms, so that tests can measure the error that its bound assumes.
  void (*quick_normals)(const uint64_t *radius, const uint64_t *angle, int64_t count, double *first, double *second);
  // sqnorms[b] (+)= |row b|^2 over all V in float64. ids and places are [batch, steps], each sample sorted by itself.
  void (*embedding_sqnorms)(const Lookups &lookups, double *sqnorms, bool accumulate);
  // out[v * width + j] += sum over b of float32(factors[b] * row b[v, j]), out and scale as in clipped_sum, but float64 is
  // added to row by row. All samples are sorted together, places are b * steps + t; this call adds the ids that begin in
  // [from, to) of them. Ids of samples that count must lie in [0, V).
  bool (*clipped_embedding_sum)(const Lookups &lookups, const float *factors, int64_t from, int64_t to, void *out,
                                Element out_element, double scale);
  // losses[i] = ln sum exp - value at the label; stats[i] = {maximum, sum of exp(value - maximum)}; the logits become their
  // gradients if wanted, and the mapped values otherwise. Tokens that do not count have loss and gradient 0.
  void (*head_losses)(const LogitsTile &tile, double *losses, double *stats, bool want_gradient);
  // The gradients again, of the columns start, start + 1, ... of the vocabulary, from their logits and the stats.
  void (*head_gradient)(const LogitsTile &tile, const double *stats, int64_t start);
  // sqnorms[b] (+)= an upper bound of |row b|^2, inf or NaN for rows that are not finite: from the row's own elements, or from
  // the steps' inner products with the rounding term of product_bound.h.
  void (*product_sqnorms_tiles)(const Products &products, double *sqnorms, bool accumulate, float *workspace);
  void (*product_sqnorms_gram)(const Products &products, double *sqnorms, bool accumulate);
  // out[i * out_stride + j] += sum over b of float32(factors[b] * row b[i, j]), in order of b. float64: added one by one;
  // float32 and int64, as in clipped_sum: summed inside, added once.
  bool (*clipped_product_sum)(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                              double scale, float *workspace);
  // out[i] (+)= the discrete Gaussian of coordinate offset + i; sigma as discrete_gaussian.h demands, coordinates below 2^46.
  void (*discrete_gaussian)(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                            bool accumulate);
  // One step of torch's optimizers on the noisy mean, in place; false if a coordinate of an int64 total is beyond 2^53 (its
  // weight is NaN then). A null momentum buffer means none.
  bool (*sgd_update)(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer);
  bool (*adam_update)(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq);
  // crosses[b] = <E, H> in float64, E the lookups' row b [V, width], sorted sample by sample, H the row b of a product whose
  // left side has V columns and whose right side has `width`. Given of its left side are the columns that the sorted ids name,
  // [batch, steps, lookups.steps] float32.
  void (*tied_cross)(const Lookups &lookups, const Products &touched, double *crosses, float *workspace);
};

const CpuKernels &cpu_kernels();      // for this processor, or the one that PRIVKT_CPU_ISA names; throws std::runtime_error
const char *built_cpu_isas();         // "scalar,avx2,avx512"

// The noise's rare exact path, compiled once for every processor.
float exact_noise_cpu(const NoiseKey &key, uint64_t step, uint64_t index, double base, double sigma);

// The same for blocks of threads (privkt/blocks). On a GPU every pointer but the key's is device memory and `stream` a
// cudaStream_t; they return a cudaError_t as int and wait for nothing. A coordinate that cannot be summed exactly becomes
// kNoCells, and a weight NaN: nothing else tells. Doubles of the workspaces that callers provide; tied_cross's is [batch, width]:
int64_t product_workspace(int64_t batch, int64_t steps, int64_t d, bool gram);
int64_t embedding_workspace(int64_t batch, int64_t steps);

struct BlockKernels {
  int (*row_sqnorms)(const Rows &rows, double *sqnorms, bool accumulate, void *stream);
  int (*clip_factors)(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                        float *factors, uint8_t *finite, void *stream);
  int (*clipped_sum)(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale,
                       void *stream);
  int (*noise)(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
               uint64_t offset, void *stream);
  int (*discrete_gaussian)(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                           bool accumulate, void *stream);
  int (*sgd_update)(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer, void *stream);
  int (*adam_update)(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq,
                     void *stream);
  int (*product_sqnorms_tiles)(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream);
  int (*product_sqnorms_gram)(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream);
  int (*clipped_product_sum)(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                             double scale, void *stream);
  int (*embedding_sqnorms)(const Lookups &lookups, double *sqnorms, bool accumulate, double *workspace, void *stream);
  int (*clipped_embedding_sum)(const Lookups &lookups, const float *factors, void *out, Element out_element, double scale,
                               void *stream);
  int (*tied_cross)(const Lookups &lookups, const Products &touched, double *crosses, double *workspace, void *stream);
};

// The blocks and their threads played by one thread of the CPU, for tests, from the first to the last or the other way round;
// the stream is not used.
const BlockKernels &played_kernels();
void play_backwards(bool backwards);

#if defined(PRIVKT_HAS_CUDA)
const BlockKernels &cuda_kernels();
int head_losses_cuda(const LogitsTile &tile, double *losses, double *stats, bool want_gradient, void *stream);
int head_gradient_cuda(const LogitsTile &tile, const double *stats, int64_t start, void *stream);
const char *cuda_error_text(int code);
#endif

}  // namespace privkt

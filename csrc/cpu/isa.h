// One namespace per instruction set: the kernel sources are compiled once for each, with PRIVKT_ISA naming it.
#pragma once

#include "privkt/kernels.h"
#include "privkt/portable.h"

#if !defined(PRIVKT_ISA)
#error "compile with -DPRIVKT_ISA=scalar, avx2, avx512, ..."
#endif

#if defined(__GNUC__)
#define PRIVKT_PREFETCH(address) __builtin_prefetch(address)
#else
#define PRIVKT_PREFETCH(address) static_cast<void>(0)
#endif

namespace privkt::PRIVKT_ISA {

void row_sqnorms(const Rows &rows, double *sqnorms, bool accumulate);
void clip_factors(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                  float *factors, uint8_t *finite);
bool clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale);
void noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
           uint64_t offset);
void discrete_gaussian(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                       bool accumulate);
void quick_normals(const uint64_t *radius, const uint64_t *angle, int64_t count, double *first, double *second);
void embedding_sqnorms(const Lookups &lookups, double *sqnorms, bool accumulate);
bool clipped_embedding_sum(const Lookups &lookups, const float *factors, int64_t from, int64_t to, void *out, Element out_element,
                           double scale);
void head_losses(const LogitsTile &tile, double *losses, double *stats, bool want_gradient);
void head_gradient(const LogitsTile &tile, const double *stats, int64_t start);
void product_sqnorms_tiles(const Products &products, double *sqnorms, bool accumulate, float *workspace);
void product_sqnorms_gram(const Products &products, double *sqnorms, bool accumulate);
bool clipped_product_sum(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                         double scale, float *workspace);
bool sgd_update(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer);
bool adam_update(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq);
void tied_cross(const Lookups &lookups, const Products &touched, double *crosses, float *workspace);

static inline float load(const float *p, int64_t i) { return p[i]; }
static inline float load(const uint16_t *p, int64_t i) { return float_of(uint32_t(p[i]) << 16); }  // bfloat16

}  // namespace privkt::PRIVKT_ISA

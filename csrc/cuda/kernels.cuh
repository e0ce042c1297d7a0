// The kernels made from privkt/blocks, one file each.
#pragma once

#include "privkt/kernels.h"

namespace privkt::gpu {

int row_sqnorms(const Rows &rows, double *sqnorms, bool accumulate, void *stream);
int clip_factors(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                 float *factors, uint8_t *finite, void *stream);
int clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale,
                void *stream);
int noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
          uint64_t offset, void *stream);
int discrete_gaussian(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                      bool accumulate, void *stream);
int sgd_update(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer, void *stream);
int adam_update(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq,
                void *stream);
int product_sqnorms_tiles(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream);
int product_sqnorms_gram(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream);
int clipped_product_sum(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                        double scale, void *stream);
int embedding_sqnorms(const Lookups &lookups, double *sqnorms, bool accumulate, double *workspace, void *stream);
int clipped_embedding_sum(const Lookups &lookups, const float *factors, void *out, Element out_element, double scale,
                          void *stream);
int tied_cross(const Lookups &lookups, const Products &touched, double *crosses, double *workspace, void *stream);

}  // namespace privkt::gpu

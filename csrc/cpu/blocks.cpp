// The GPU's blocks of threads played by one thread of the CPU: slow, and what the tests compare with the CPU's kernels.
#include "play.h"
#include "privkt/blocks/copies.h"
#include "privkt/blocks/discrete.h"
#include "privkt/blocks/gram.h"
#include "privkt/blocks/rows.h"
#include "privkt/blocks/tied.h"
#include "privkt/blocks/updates.h"

namespace privkt {

bool played_backwards = false;
bool blocks::copies_land_late = true;

namespace {

int row_sqnorms(const Rows &rows, double *sqnorms, bool accumulate, void *) {
  return blocks::row_sqnorms(Play{}, rows, sqnorms, accumulate);
}

int clip_factors(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                 float *factors, uint8_t *finite, void *) {
  return blocks::clip_factors(Play{}, sqnorms, mask, batch, max_norm, width, slack, factors, finite);
}

int clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale, void *) {
  return blocks::clipped_sum(Play{}, rows, factors, out, out_element, accumulate, scale);
}

int noise(float *out, const void *base, Element base_element, int64_t count, double sigma, const NoiseKey &key, uint64_t step,
          uint64_t offset, void *) {
  return blocks::noise(Play{}, out, base, base_element, count, sigma, key, step, offset);
}

int discrete_gaussian(int64_t *out, int64_t count, double sigma, const NoiseKey &key, uint64_t step, uint64_t offset,
                      bool accumulate, void *) {
  return blocks::discrete_gaussian(Play{}, out, count, sigma, key, step, offset, accumulate);
}

int sgd_update(const NoisyMean &mean, const SgdStep &how, const Weights &weights, float *momentum_buffer, void *) {
  return blocks::sgd_update(Play{}, mean, how, weights, momentum_buffer);
}

int adam_update(const NoisyMean &mean, const AdamStep &how, const Weights &weights, float *exp_avg, float *exp_avg_sq,
                void *) {
  return blocks::adam_update(Play{}, mean, how, weights, exp_avg, exp_avg_sq);
}

int product_sqnorms_tiles(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *) {
  return blocks::product_sqnorms_tiles(Play{}, products, sqnorms, accumulate, workspace);
}

int product_sqnorms_gram(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *) {
  return blocks::product_sqnorms_gram(Play{}, products, sqnorms, accumulate, workspace);
}

int clipped_product_sum(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                        double scale, void *) {
  return blocks::clipped_product_sum(Play{}, products, factors, out, out_element, out_stride, scale);
}

int embedding_sqnorms(const Lookups &lookups, double *sqnorms, bool accumulate, double *workspace, void *) {
  return blocks::embedding_sqnorms(Play{}, lookups, sqnorms, accumulate, workspace);
}

int clipped_embedding_sum(const Lookups &lookups, const float *factors, void *out, Element out_element, double scale,
                          void *) {
  return blocks::clipped_embedding_sum(Play{}, lookups, factors, out, out_element, scale);
}

int tied_cross(const Lookups &lookups, const Products &touched, double *crosses, double *workspace, void *) {
  return blocks::tied_cross(Play{}, lookups, touched, crosses, workspace);
}

}  // namespace

int64_t product_workspace(int64_t batch, int64_t steps, int64_t d, bool gram) {
  return batch * (gram ? blocks::tiles_of(steps) * blocks::kSums : d);
}

int64_t embedding_workspace(int64_t batch, int64_t steps) { return batch * blocks::parts_of(steps, blocks::kRuns); }

void play_backwards(bool backwards) {
  played_backwards = backwards;
  blocks::copies_land_late = !backwards;
}

const BlockKernels &played_kernels() {
  static const BlockKernels kernels = {row_sqnorms,
                                       clip_factors,
                                       clipped_sum,
                                       noise,
                                       discrete_gaussian,
                                       sgd_update,
                                       adam_update,
                                       product_sqnorms_tiles,
                                       product_sqnorms_gram,
                                       clipped_product_sum,
                                       embedding_sqnorms,
                                       clipped_embedding_sum,
                                       tied_cross};
  return kernels;
}

}  // namespace privkt

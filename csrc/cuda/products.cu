// Rows that are not stored, in tiles of registers: see privkt/blocks/products.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/products.h"

namespace privkt::gpu {

int product_sqnorms_tiles(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream) {
  return blocks::product_sqnorms_tiles(GpuLaunch{stream}, products, sqnorms, accumulate, workspace);
}

int clipped_product_sum(const Products &products, const float *factors, void *out, Element out_element, int64_t out_stride,
                             double scale, void *stream) {
  return blocks::clipped_product_sum(GpuLaunch{stream}, products, factors, out, out_element, out_stride, scale);
}

}  // namespace privkt::gpu

// Norms of rows that are not stored, from inner products: see privkt/blocks/gram.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/gram.h"

namespace privkt::gpu {

int product_sqnorms_gram(const Products &products, double *sqnorms, bool accumulate, double *workspace, void *stream) {
  return blocks::product_sqnorms_gram(GpuLaunch{stream}, products, sqnorms, accumulate, workspace);
}

}  // namespace privkt::gpu

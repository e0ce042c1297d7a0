// Norms and sums of embeddings' rows: see privkt/blocks/embeddings.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/embeddings.h"

namespace privkt::gpu {

int embedding_sqnorms(const Lookups &lookups, double *sqnorms, bool accumulate, double *workspace, void *stream) {
  return blocks::embedding_sqnorms(GpuLaunch{stream}, lookups, sqnorms, accumulate, workspace);
}

int clipped_embedding_sum(const Lookups &lookups, const float *factors, void *out, Element out_element, double scale,
                               void *stream) {
  return blocks::clipped_embedding_sum(GpuLaunch{stream}, lookups, factors, out, out_element, scale);
}

}  // namespace privkt::gpu

// Square norms of rows and the clip factors that follow from them: see privkt/blocks/rows.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/rows.h"

namespace privkt::gpu {

int row_sqnorms(const Rows &rows, double *sqnorms, bool accumulate, void *stream) {
  return blocks::row_sqnorms(GpuLaunch{stream}, rows, sqnorms, accumulate);
}

int clip_factors(const double *sqnorms, const uint8_t *mask, int64_t batch, double max_norm, double width, double slack,
                 float *factors, uint8_t *finite, void *stream) {
  return blocks::clip_factors(GpuLaunch{stream}, sqnorms, mask, batch, max_norm, width, slack, factors, finite);
}

}  // namespace privkt::gpu

// The sum of clipped rows: see privkt/blocks/rows.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/rows.h"

namespace privkt::gpu {

int clipped_sum(const Rows &rows, const float *factors, void *out, Element out_element, bool accumulate, double scale,
                void *stream) {
  return blocks::clipped_sum(GpuLaunch{stream}, rows, factors, out, out_element, accumulate, scale);
}

}  // namespace privkt::gpu

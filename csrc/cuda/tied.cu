// The cross term of a tied weight: see privkt/blocks/tied.h.
#include "kernels.cuh"
#include "launch.cuh"
#include "privkt/blocks/tied.h"

namespace privkt::gpu {

int tied_cross(const Lookups &lookups, const Products &touched, double *crosses, double *workspace, void *stream) {
  return blocks::tied_cross(GpuLaunch{stream}, lookups, touched, crosses, workspace);
}

}  // namespace privkt::gpu

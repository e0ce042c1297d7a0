// What the CUDA kernels share.
#pragma once

#include <cuda_runtime.h>

#include "privkt/kernels.h"
#include "privkt/portable.h"

namespace privkt {

__device__ static inline float load(const float *p, int64_t i) { return p[i]; }
__device__ static inline float load(const uint16_t *p, int64_t i) { return float_of(uint32_t(p[i]) << 16); }  // bfloat16

static inline unsigned blocks_for(int64_t work, int64_t each) {  // callers loop with a grid stride
  const int64_t blocks = (work + each - 1) / each;
  return unsigned(blocks < 1 ? 1 : blocks > 65535 ? 65535 : blocks);
}

}  // namespace privkt

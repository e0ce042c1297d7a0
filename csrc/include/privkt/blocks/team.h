// A block of threads that work in phases, written once for both compilers.
//
// nvcc makes GPU kernels of the programs in this folder, one thread of a block for each thread of a team. The C++ compiler
// makes functions of the very same source that play a team's threads one after another, forwards or backwards
// (csrc/cpu/blocks.cpp): slow, but what the tests compare with the CPU's kernels is what the GPU runs.
//
// A program has Shared (memory of the block), Registers (of each thread), kThreads, and `run(team, shared, block)`, in which
//   team.each(work)   calls work(thread, registers) for every thread, and all wait for the last of them;
//   team.apart(work)  does not wait: what a thread writes there, no other thread reads before the next `each` has ended.
// Inside a phase no thread reads what another one writes, so that the order of threads cannot show in a result.
#pragma once

#include "privkt/kernels.h"
#include "privkt/portable.h"

#if defined(__CUDACC__)
#define PRIVKT_BLOCK_FN static __device__ __forceinline__
#define PRIVKT_UNROLLED _Pragma("unroll")
#elif defined(__GNUC__)
#define PRIVKT_BLOCK_FN [[maybe_unused]] static inline
#define PRIVKT_UNROLLED _Pragma("GCC unroll 16")
#else
#define PRIVKT_BLOCK_FN [[maybe_unused]] static inline
#define PRIVKT_UNROLLED
#endif

namespace privkt::blocks {

struct Nothing {};

static inline int64_t parts_of(int64_t total, int64_t each) { return (total + each - 1) / each; }

PRIVKT_FN int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

PRIVKT_FN float element_at(const void *data, Element element, int64_t i) {  // bfloat16 widens exactly
  return element == Element::bfloat16 ? float_of(uint32_t(static_cast<const uint16_t *>(data)[i]) << 16)
                                      : static_cast<const float *>(data)[i];
}

PRIVKT_FN bool in_mask(const uint8_t *mask, int64_t sample) { return mask == nullptr || mask[sample] != 0; }

// What does not count, or has the factor zero that clip_factors gives to what is not finite, is not read at all: 0 * NaN
// would be NaN.
PRIVKT_FN bool counts(const uint8_t *mask, const float *factors, int64_t sample) {
  return in_mask(mask, sample) && factors[sample] > 0.0f && factors[sample] <= 0x1.fffffep127f;
}

PRIVKT_FN int64_t counting(const uint8_t *mask, const float *factors, int64_t batch) {
  int64_t samples = 0;
  for (int64_t b = 0; b < batch; ++b) samples += counts(mask, factors, b) ? 1 : 0;
  return samples;
}

}  // namespace privkt::blocks

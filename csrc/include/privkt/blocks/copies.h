// Copies of 16 bytes from global to shared memory that a thread begins, and waits for later (cp.async).
//
// A GPU may let them land at any time between. Played on the CPU they land at either end of it: at once, which shows where a
// place is still read, or as late as their thread's wait, which shows where one is read too early.
#pragma once

#include "privkt/blocks/team.h"

namespace privkt::blocks {

constexpr int kCopied = 16;

#if !defined(__CUDACC__)
extern bool copies_land_late;  // csrc/cpu/blocks.cpp
#endif

// The first `there` bytes come from memory, the others are zeros. Whole copies need addresses that 16 divides, or 4; `unit`
// says which, else bytes go one by one.
PRIVKT_BLOCK_FN void copy_now(uint32_t *to, const int8_t *from, int there, int) {
  PRIVKT_UNROLLED
  for (int i = 0; i < kCopied / 4; ++i) {
    uint32_t word = 0;
    PRIVKT_UNROLLED
    for (int byte = 0; byte < 4; ++byte) {
      if (4 * i + byte < there) word |= uint32_t(uint8_t(from[4 * i + byte])) << (8 * byte);
    }
    to[i] = word;
  }
}

#if defined(__CUDACC__)
template <int each, int groups>
struct Copies {
  __device__ __forceinline__ void reset() {}

  __device__ __forceinline__ void begin(uint32_t *to, const int8_t *from, int there, int unit) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const uint32_t place = uint32_t(__cvta_generic_to_shared(to));
    if (unit == 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(there) : "memory");
    } else if (unit == 4) {
#pragma unroll
      for (int i = 0; i < kCopied / 4; ++i) {
        const int left = there - 4 * i, here = left < 0 ? 0 : (left < 4 ? left : 4);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(place + 4 * i), "l"(from + (here > 0 ? 4 * i : 0)),
                     "r"(here) : "memory");
      }
    } else {
      copy_now(to, from, there, unit);
    }
#else
    copy_now(to, from, there, unit);
#endif
  }

  // What began since the last call is a group.
  __device__ __forceinline__ void close_group() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }

  // The thread's groups have landed, all but the latest ones. Other threads see them after the next barrier.
  template <int latest>
  __device__ __forceinline__ void wait_for_all_but() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(latest) : "memory");
#endif
  }
};
#else
template <int each, int groups>
struct Copies {
  struct One {
    uint32_t *to;
    const int8_t *from;
    int there, unit;
  };
  One waiting[groups][each];
  int begun[groups], group;
  int64_t closed, landed;

  void reset() {
    closed = landed = 0;
    group = begun[0] = 0;
  }

  void begin(uint32_t *to, const int8_t *from, int there, int unit) {
    if (copies_land_late) {
      waiting[group][begun[group]++] = {to, from, there, unit};
    } else {
      copy_now(to, from, there, unit);
    }
  }

  void close_group() {
    group = int(++closed % groups);
    begun[group] = 0;
  }

  template <int latest>
  void wait_for_all_but() {
    for (; landed + latest < closed; ++landed) {
      const int which = int(landed % groups);
      for (int i = 0; i < begun[which]; ++i) {
        const One &one = waiting[which][i];
        copy_now(one.to, one.from, one.there, one.unit);
      }
    }
  }
};
#endif

}  // namespace privkt::blocks

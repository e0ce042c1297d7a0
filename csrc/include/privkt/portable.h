// What the CPU and the CUDA compiler both need: qualifiers and bit casts.
//
// Everything in these headers is `static` on purpose. The same header is compiled once per instruction set; an inline
// function with external linkage would be a weak symbol, and the linker could then hand the AVX-512 copy to a
// processor without AVX-512.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define PRIVKT_FN static __host__ __device__ inline
#define PRIVKT_SLOW_FN static __host__ __device__ __noinline__
#else
#define PRIVKT_FN static inline
#define PRIVKT_SLOW_FN [[maybe_unused]] static
#endif

namespace privkt {

PRIVKT_FN uint64_t bits_of(double x) {
  uint64_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

PRIVKT_FN double double_of(uint64_t b) {
  double x;
  memcpy(&x, &b, sizeof x);
  return x;
}

PRIVKT_FN uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

PRIVKT_FN float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

}  // namespace privkt

// Which instruction set this processor runs, decided once, and the noise's exact path, which needs none.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "privkt/gaussian.h"
#include "privkt/kernels.h"

#define PRIVKT_DECLARE(isa)                                                                                                   \
  namespace privkt::isa {                                                                                                     \
  void row_sqnorms(const Rows &, double *, bool);                                                                             \
  void clip_factors(const double *, const uint8_t *, int64_t, double, double, double, float *, uint8_t *);                    \
  bool clipped_sum(const Rows &, const float *, void *, Element, bool, double);                                               \
  void noise(float *, const void *, Element, int64_t, double, const NoiseKey &, uint64_t, uint64_t);                          \
  void quick_normals(const uint64_t *, const uint64_t *, int64_t, double *, double *);                                        \
  void embedding_sqnorms(const Lookups &, double *, bool);                                                                    \
  bool clipped_embedding_sum(const Lookups &, const float *, int64_t, int64_t, void *, Element, double);                      \
  void head_losses(const LogitsTile &, double *, double *, bool);                                                             \
  void head_gradient(const LogitsTile &, const double *, int64_t);                                                            \
  void product_sqnorms_tiles(const Products &, double *, bool, float *);                                                      \
  void product_sqnorms_gram(const Products &, double *, bool);                                                                \
  bool clipped_product_sum(const Products &, const float *, void *, Element, int64_t, double, float *);                       \
  void discrete_gaussian(int64_t *, int64_t, double, const NoiseKey &, uint64_t, uint64_t, bool);                             \
  bool sgd_update(const NoisyMean &, const SgdStep &, const Weights &, float *);                                              \
  bool adam_update(const NoisyMean &, const AdamStep &, const Weights &, float *, float *);                                   \
  void tied_cross(const Lookups &, const Products &, double *, float *);                                                      \
  }
#define PRIVKT_TABLE(isa)                                                                                                     \
  CpuKernels{                                                                                                                 \
      #isa,                       isa::row_sqnorms,           isa::clip_factors,                                              \
      isa::clipped_sum,           isa::noise,                 isa::quick_normals,                                             \
      isa::embedding_sqnorms,     isa::clipped_embedding_sum, isa::head_losses,                                               \
      isa::head_gradient,         isa::product_sqnorms_tiles, isa::product_sqnorms_gram,                                      \
      isa::clipped_product_sum,   isa::discrete_gaussian,     isa::sgd_update,                                                \
      isa::adam_update,           isa::tied_cross,                                                                            \
  }

PRIVKT_DECLARE(scalar)
#if defined(PRIVKT_HAS_X86)
PRIVKT_DECLARE(avx2)
PRIVKT_DECLARE(avx512)
#endif

namespace privkt {

namespace {

bool runs_here(const std::string &isa) {
  if (isa == "scalar") return true;
#if defined(PRIVKT_HAS_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return false;
}

CpuKernels table(const std::string &isa) {
#if defined(PRIVKT_HAS_X86)
  if (isa == "avx2") return PRIVKT_TABLE(avx2);
  if (isa == "avx512") return PRIVKT_TABLE(avx512);
#endif
  if (isa == "scalar") return PRIVKT_TABLE(scalar);
  throw std::runtime_error("PRIVKT_CPU_ISA: must be one of " + std::string(built_cpu_isas()) + ", got '" + isa +
                           "'; unset it to let the processor decide");
}

CpuKernels choose() {
  const char *asked = std::getenv("PRIVKT_CPU_ISA");
#if defined(PRIVKT_HAS_AMX)
  // Only token kernels go beyond AVX-512, and they say why where there are no tiles.
  if (asked != nullptr && std::string(asked) == "amx") asked = runs_here("avx512") ? "avx512" : nullptr;
#endif
  if (asked != nullptr && *asked != '\0') {
    const CpuKernels kernels = table(asked);
    if (!runs_here(asked)) {
      throw std::runtime_error("PRIVKT_CPU_ISA: must name instructions that this processor has, got '" + std::string(asked) +
                               "'; unset it to let the processor decide");
    }
    return kernels;
  }
  for (const char *isa : {"avx512", "avx2"}) {
    if (runs_here(isa)) return table(isa);
  }
  return table("scalar");
}

}  // namespace

const char *built_cpu_isas() {
#if defined(PRIVKT_HAS_X86)
  return "scalar,avx2,avx512";
#else
  return "scalar";
#endif
}

const CpuKernels &cpu_kernels() {
  static const CpuKernels kernels = choose();
  return kernels;
}

float exact_noise_cpu(const NoiseKey &key, uint64_t step, uint64_t index, double base, double sigma) {
  return exact_noise(key.word, step, index, base, sigma);
}

}  // namespace privkt

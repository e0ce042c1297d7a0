// Which instruction set the token kernels run: as the others', with VNNI beside AVX-512, and AMX beside both, where there are.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "amx_check.h"

#define PRIVKT_DECLARE(isa)                                                                                                  \
  namespace privkt::isa {                                                                                                    \
  void weight_totals(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, int64_t *, int64_t *);      \
  void exponential_draws(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, const TokenDraws &,     \
                         int64_t *);                                                                                         \
  void nearest_words(const ByteQueries &, const ByteRows &, int64_t, int32_t *, int32_t *, int64_t *);                       \
  void row_extremes(const ByteQueries &, const ByteRows &, const Levels &, const int32_t *, const int32_t *, int32_t *,      \
                    int32_t *, int64_t *);                                                                                   \
  void rejection_draws(const ByteRows &, const NeighbourList &, const Levels &, const WeightTable &, const FixedTime &,      \
                       const int64_t *, int64_t, int64_t *, const NoiseKey &, uint64_t, uint64_t, int64_t *);                \
  void flip_draws(const ByteRows &, const Levels &, const int32_t *, int, const int64_t *, int64_t, int64_t *,               \
                  const NoiseKey &, uint64_t, uint64_t, int64_t *);                                                          \
  void table_totals(const ByteRows &, const TablePiece &, const Levels &, const WeightTable &, int64_t *, int64_t *);        \
  void table_nearest(const ByteRows &, const TablePiece &, int64_t, const TableLists &, int64_t *);                          \
  void selected_words(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, const uint64_t *,          \
                      int64_t *, int64_t *);                                                                                 \
  }
#define PRIVKT_TABLE(isa)                                                                                                    \
  TokenKernels {                                                                                                             \
    #isa, isa::weight_totals, isa::exponential_draws, isa::nearest_words, isa::row_extremes, isa::rejection_draws,           \
        isa::flip_draws, isa::table_totals, isa::table_nearest, isa::selected_words                                               \
  }

PRIVKT_DECLARE(scalar)
#if defined(PRIVKT_HAS_X86)
PRIVKT_DECLARE(avx2)
PRIVKT_DECLARE(avx512)
PRIVKT_DECLARE(avx512vnni)
#endif
#if defined(PRIVKT_HAS_AMX)
PRIVKT_DECLARE(amx)
#endif

namespace privkt {

namespace {

bool runs_here(const std::string &isa) {
  if (isa == "scalar") return true;
#if defined(PRIVKT_HAS_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (isa == "avx2") return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == "avx512") return avx512;
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (isa == "avx512vnni") return vnni;
  if (isa == "amx") return vnni && *amx_left_out() == '\0';
#endif
  return false;
}

}  // namespace

const char *amx_left_out() {
  static const std::string reason = [] {
    std::string found = amx_reason();
#if defined(PRIVKT_HAS_AMX)
    static const TokenKernels tiles = PRIVKT_TABLE(amx), scalars = PRIVKT_TABLE(scalar);
    if (found.empty()) found = differs_from(tiles, scalars);
#endif
    return found;
  }();
  return reason.c_str();
}

const char *built_token_isas() {
#if defined(PRIVKT_HAS_AMX)
  return "scalar,avx2,avx512,avx512vnni,amx";
#elif defined(PRIVKT_HAS_X86)
  return "scalar,avx2,avx512,avx512vnni";
#else
  return "scalar";
#endif
}

const TokenKernels &token_kernels(const char *asked) {
  static const TokenKernels scalar_kernels = PRIVKT_TABLE(scalar);
#if defined(PRIVKT_HAS_X86)
  static const TokenKernels avx2_kernels = PRIVKT_TABLE(avx2), avx512_kernels = PRIVKT_TABLE(avx512),
                            vnni_kernels = PRIVKT_TABLE(avx512vnni);
#endif
#if defined(PRIVKT_HAS_AMX)
  static const TokenKernels amx_kernels = PRIVKT_TABLE(amx);
#endif
  const char *wished = std::getenv("PRIVKT_CPU_ISA");
  std::string isa = asked;
  if (isa.empty()) {
    isa = cpu_kernels().isa;
    if (isa == "avx512" && runs_here("avx512vnni")) isa = "avx512vnni";
    if (wished != nullptr && std::string(wished) == "amx") {
      isa = "amx";
    } else if (isa == "avx512vnni" && (wished == nullptr || *wished == '\0') && runs_here("amx")) {
      isa = "amx";
    }
  }
  if (!runs_here(isa)) {
    const std::string why = isa == "amx" ? " (" + std::string(amx_left_out()) + ")" : "";
    throw std::runtime_error("token kernels: the instruction set must be one of " + std::string(built_token_isas()) +
                             " that this processor has, got '" + isa + "'" + why + "; leave it out to let the processor decide");
  }
#if defined(PRIVKT_HAS_AMX)
  if (isa == "amx") return amx_kernels;
#endif
#if defined(PRIVKT_HAS_X86)
  if (isa == "avx512vnni") return vnni_kernels;
  if (isa == "avx512") return avx512_kernels;
  if (isa == "avx2") return avx2_kernels;
#endif
  return scalar_kernels;
}

}  // namespace privkt

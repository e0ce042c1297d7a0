// Whether AMX's tiles may be used here: what the processor says, what the system allows, and what a small product comes to.
#include "amx_check.h"

#include <vector>

#if defined(PRIVKT_HAS_AMX)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace privkt {

std::string differs_from(const TokenKernels &kernels, const TokenKernels &truth) {
  constexpr int64_t count = 75, width = 131, batch = 37, k = 5;  // no multiple of any tile
  std::vector<int8_t> words(size_t(count * width)), queries(size_t(batch * width));
  uint32_t state = 1;
  for (std::vector<int8_t> *all : {&words, &queries}) {
    for (int8_t &x : *all) x = int8_t((state = state * 1664525u + 1013904223u) >> 24);
  }
  std::vector<int32_t> norms(size_t(count), 1 << 24);
  const ByteRows rows = {words.data(), norms.data(), count, width, width};
  const ByteQueries asked = {{queries.data(), norms.data(), batch, width, width}, nullptr, batch};
  std::vector<int64_t> workspace(static_cast<size_t>(nearest_workspace(width, count, k)));
  std::vector<int32_t> found[2][2];
  const TokenKernels *both[2] = {&kernels, &truth};
  for (int which = 0; which < 2; ++which) {
    for (auto &part : found[which]) part.assign(size_t(batch * k), -1);
    both[which]->nearest_words(asked, rows, k, found[which][0].data(), found[which][1].data(), workspace.data());
  }
  const bool equal = found[0][0] == found[1][0] && found[0][1] == found[1][1];
  return equal ? "" : "a product on this processor differs from the scalar code's";
}

std::string amx_reason() {
#if !defined(PRIVKT_HAS_AMX)
  return "not built: it needs x86-64 and a compiler that knows -mamx-int8";
#elif !defined(__linux__)
  return "asked for on Linux alone";
#else
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25, kSaves = 1u << 27;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return "this processor has none";
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kSaves) == 0) return "the system does not save the tiles";
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & (3u << 17)) != (3u << 17)) return "the system does not save the tiles";
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  if (syscall(SYS_arch_prctl, kRequest, kTileData) != 0) return "the system does not permit the tiles";
  return "";
#endif
}

}  // namespace privkt

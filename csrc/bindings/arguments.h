// What the bindings' files share: addresses, keys, and the floating-point mode that the kernels' bounds assume.
#pragma once

#include <pybind11/pybind11.h>

#include <cfenv>
#include <stdexcept>
#include <string>

#include "privkt/kernels.h"

namespace privkt {

template <typename T>
T *at(uintptr_t address) {
  return reinterpret_cast<T *>(address);
}

// The bounds hold for rounding to nearest and denormals kept, whatever the calling thread has been set to.
class DefaultFloats {
 public:
  DefaultFloats() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloats() { std::fesetenv(&before_); }
  DefaultFloats(const DefaultFloats &) = delete;
  DefaultFloats &operator=(const DefaultFloats &) = delete;

 private:
  std::fenv_t before_;
};

inline NoiseKey key_from(const std::string &bytes) {
  if (bytes.size() != 32) throw std::invalid_argument("noise key: must have 32 bytes, got " + std::to_string(bytes.size()));
  NoiseKey key;
  for (int i = 0; i < 8; ++i) {
    key.word[i] = 0;
    for (int byte = 0; byte < 4; ++byte) key.word[i] |= uint32_t(uint8_t(bytes[size_t(4 * i + byte)])) << (8 * byte);
  }
  return key;
}

void bind_tokens_cpu(pybind11::module_ &m);

}  // namespace privkt

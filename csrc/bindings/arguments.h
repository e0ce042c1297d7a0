// How Python hands things over: integers for pointers, checks left to the op wrappers in privkt/kernels.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cfenv>
#include <stdexcept>
#include <string>

#include "privkt/kernels.h"

namespace py = pybind11;

namespace privkt {

template <typename T>
T *at(uintptr_t address) {
  return reinterpret_cast<T *>(address);
}

inline Rows rows_at(uintptr_t data, int element, int64_t batch, int64_t width, int64_t stride, uintptr_t mask) {
  return {at<void>(data), Element(element), batch, width, stride, at<uint8_t>(mask)};
}

// ids, places, grad, element, width, sample stride, step stride, batch, steps, mask, padding, as Python hands them over.
using LookupArguments = std::array<int64_t, 11>;

inline Lookups lookups_at(const LookupArguments &x) {
  return {at<int64_t>(uintptr_t(x[0])), at<int64_t>(uintptr_t(x[1])), at<void>(uintptr_t(x[2])), Element(x[3]), x[4],
          x[5], x[6], x[7], x[8], at<uint8_t>(uintptr_t(x[9])), x[10]};
}

inline LogitsTile tile_at(uintptr_t logits, int64_t rows, int64_t columns, int64_t stride, uintptr_t labels, double scale, double cap) {
  return {at<float>(logits), rows, columns, stride, at<int64_t>(labels), float(scale), float(cap)};
}

inline Products products_at(uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step, uintptr_t right,
                     int right_element, int64_t d, int64_t right_sample, int64_t right_step, int64_t batch, int64_t steps,
                     uintptr_t mask) {
  return {{at<void>(left), Element(left_element), p, left_sample, left_step},
          {at<void>(right), Element(right_element), d, right_sample, right_step},
          batch,
          steps,
          at<uint8_t>(mask)};
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

// (total, element, cell, sigma, key, step, offset, divisor, negative)
inline NoisyMean mean_from(const py::tuple &t) {
  return {at<void>(t[0].cast<uintptr_t>()), Element(t[1].cast<int>()), t[2].cast<double>(), t[3].cast<double>(),
          key_from(t[4].cast<py::bytes>()), t[5].cast<uint64_t>(), t[6].cast<uint64_t>(), t[7].cast<float>(), t[8].cast<bool>()};
}

// Throws where a launch reported an error.
void check_launch(int code, const char *kernel);

void bind_blocks(py::module_ &m);
void bind_token_blocks(py::module_ &m);
void bind_tokens_cpu(py::module_ &m);

}  // namespace privkt

// Tables of bytes for the token kernels' programs, the same wherever they are made.
#pragma once

#include <cstdint>
#include <vector>

#include "privkt/token_blocks.h"

namespace {

using namespace privkt;

std::vector<int8_t> bytes(size_t count, uint32_t seed, int most) {
  std::vector<int8_t> x(count);
  for (int8_t &value : x) {
    seed = seed * 1664525u + 1013904223u;
    value = int8_t(int(seed >> 16) % (2 * most + 1) - most);
  }
  return x;
}

struct Table {
  std::vector<int8_t> data;
  std::vector<int32_t> norms;
  ByteRows rows;

  Table(int64_t count, int64_t width, int64_t stride, uint32_t seed, int most)
      : data(bytes(size_t(count * stride), seed, most)), norms(size_t(count)) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < width; ++j) norms[size_t(i)] += data[size_t(i * stride + j)] * data[size_t(i * stride + j)];
    }
    rows = {data.data(), norms.data(), count, width, stride};
  }
};

const NoiseKey key = {{1, 2, 3, 4, 5, 6, 7, 8}};

}  // namespace

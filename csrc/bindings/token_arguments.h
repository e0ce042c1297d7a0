// How Python hands the token kernels' arguments over.
#pragma once

#include "arguments.h"
#include "privkt/exponential.h"

namespace privkt {

// words: data, bias, count, width, stride. queries: data, bias, rows, stride, ids, count. how: shift, root, last, weights, wide.
using WordArguments = std::array<int64_t, 5>;
using QueryArguments = std::array<int64_t, 6>;
using LevelArguments = std::array<int64_t, 5>;

inline ByteRows words_at(const WordArguments &x) {
  return {at<int8_t>(uintptr_t(x[0])), at<int32_t>(uintptr_t(x[1])), x[2], x[3], x[4]};
}

inline ByteQueries queries_at(const QueryArguments &x, int64_t width) {
  return {{at<int8_t>(uintptr_t(x[0])), at<int32_t>(uintptr_t(x[1])), x[2], width, x[3]}, at<int64_t>(uintptr_t(x[4])), x[5]};
}

inline Levels levels_of(const LevelArguments &x) { return {int32_t(x[0]), x[1] != 0, int32_t(x[2])}; }
inline WeightTable weights_of(const LevelArguments &x) { return {at<void>(uintptr_t(x[3])), x[4] != 0}; }

}  // namespace privkt

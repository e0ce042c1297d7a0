// The steps of a sample that look one id up, and their sum: one row of an embedding's gradient.
#pragma once

#include "isa.h"

namespace privkt::PRIVKT_ISA {

namespace {

struct Columns {
  int64_t first, count;
};

// The steps places[0...count) - base of one sample, ascending.
struct Segment {
  const int64_t *places;
  int64_t count, sample, base;
};

// sum[j] = float32 sum over the segment's steps, in their order, of column first + j.
template <typename T>
inline void add_steps(const Lookups &x, const Segment &segment, const Columns &columns, float *sum) {
  const T *grad = static_cast<const T *>(x.grad) + segment.sample * x.sample_stride + columns.first;
  const T *row = grad + (segment.places[0] - segment.base) * x.step_stride;
  for (int64_t j = 0; j < columns.count; ++j) sum[j] = load(row, j);
  for (int64_t i = 1; i < segment.count; ++i) {
    row = grad + (segment.places[i] - segment.base) * x.step_stride;
    for (int64_t j = 0; j < columns.count; ++j) sum[j] += load(row, j);
  }
}

inline int64_t run_end(const int64_t *ids, int64_t from, int64_t count) {
  int64_t end = from + 1;
  while (end < count && ids[end] == ids[from]) ++end;
  return end;
}

}  // namespace

}  // namespace privkt::PRIVKT_ISA

// What sums of clipped rows share: where a coordinate's float64 total begins, what a stored product adds, how it ends.
#pragma once

#include <type_traits>

#include "privkt/blocks/team.h"
#include "privkt/grid.h"

namespace privkt::blocks {

// float64 sums go on from what is there, sample by sample; float32 and int64 ones are added once.
template <typename Out>
PRIVKT_FN double begun(const Out *out) {
  if constexpr (std::is_same_v<Out, double>) return *out;
  return 0.0;
}

template <typename Out>
PRIVKT_FN double term(float product, double scale, float most) {
  if constexpr (std::is_same_v<Out, int64_t>) return cells_of(product, scale, most);
  return double(product);
}

template <typename Out>
PRIVKT_FN void end(Out *out, double total) {
  if constexpr (std::is_same_v<Out, int64_t>) {
    add_cells(out, total);  // what does not fit shows in `out`: kNoCells
  } else if constexpr (std::is_same_v<Out, double>) {
    *out = total;
  } else {
    *out = float(double(*out) + total);
  }
}

template <typename Out>
PRIVKT_FN float most_of(const uint8_t *mask, const float *factors, int64_t batch, double scale) {
  if constexpr (std::is_same_v<Out, int64_t>) return most_product(counting(mask, factors, batch), scale);
  return 0.0f;
}

// launch(out as it is typed), for each of the three sums.
template <typename Launch>
static inline int with_out(void *out, Element element, Launch launch) {
  if (element == Element::int64) return launch(static_cast<int64_t *>(out));
  if (element == Element::float64) return launch(static_cast<double *>(out));
  return launch(static_cast<float *>(out));
}

}  // namespace privkt::blocks

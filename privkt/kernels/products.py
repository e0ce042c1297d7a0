"""Rows that are never stored: a layer's gradient of one sample is left^T right, made in registers when it is needed.

The row of sample b is R_b = left_b^T right_b, [p, d] float32, each entry acc = fma(left[t, i], right[t, j], acc) over
the steps t in their order, from 0. That is its definition: norms and sums speak of the same bits, on every processor
and for every number of threads, and no sample's rounding depends on another sample.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from privkt.kernels import _schema


def product_norm_method(steps: int, p: int, d: int) -> Literal["gram", "tiles"]:
    """Which way to the norms multiplies less: T^2 (p + d) / 2 for inner products, T p d for the row itself."""
    return "gram" if steps * (p + d) < 2 * p * d else "tiles"


def product_sqnorms(
    left: Tensor,
    right: Tensor,
    mask: Tensor | None = None,
    *,
    method: Literal["auto", "gram", "tiles"] = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """Upper bounds of the rows' square norms |R_b|^2 in float64.

    Shapes: left [batch, steps, p], right [batch, steps, d], each float32 | bfloat16, the last dimension contiguous and
    the others with any stride; mask [batch] bool; result [batch] float64. With `out` the bounds are added to it.
    method: "tiles" makes the row in registers and adds its squares; "gram" adds products of the steps' inner products
    and a proven rounding term (norms of random entries grow by 0.05 % at 128 steps of 768 x 768, 0.4 % at 512 steps of
    1536 x 1536); "auto" is `product_norm_method`.
    Guarantee:
      - the result is at least the exact square norm of the stored float32 row that `clipped_product_sum` scales;
      - instruction sets, thread counts and other samples do not change its bits; CUDA's are the same by tiles, and by
        inner products a bound that may differ in its last places.
    Edge cases: a row that is not finite gives inf or NaN, and so do, by "gram", vectors longer than 2^63; a sample
    outside the mask gives 0 and is not read; no steps give 0.
    Raises: TypeError, ValueError for another dtype, shape, device or method.
    References: X. Li et al., Large Language Models Can Be Strong Differentially Private Learners, ICLR 2022 (inner
    products); the bound is derived in csrc/include/privkt/product_bound.h.
    """
    if method not in ("auto", "gram", "tiles"):
        raise ValueError(f"product_sqnorms: method must be auto, gram or tiles, got {method!r}; auto takes the cheaper")
    if method == "auto" and left.dim() == 3 and right.dim() == 3:
        method = product_norm_method(left.shape[1], left.shape[2], right.shape[2])
    if out is None:
        return _schema.ops.product_sqnorms(left, right, mask, method == "gram")
    _schema.ops.add_product_sqnorms_(out, left, right, mask, method == "gram")
    return out


def clipped_product_sum(
    left: Tensor, right: Tensor, factors: Tensor, mask: Tensor | None = None, *, out: Tensor, scale: float | None = None
) -> Tensor:
    """Add float32(factors[b] * R_b), the clipped rows, to `out`, and return it.

    Shapes: left, right, mask as in `product_sqnorms`; factors [batch] float32; out [p * d] float64 | float32 | int64.
    scale: for an int64 out, the grid's cells in a unit, of `grid_scale`.
    Guarantee:
      - float64: the clipped rows are added one by one in the order of the batch, so that a batch in pieces gives the
        same bits;
      - float32: they are summed in float64 and the sum is added once;
      - int64: each coordinate times scale is truncated toward zero and added exactly, whatever the order;
      - a sample with factor 0, or outside the mask, is not read: NaN in it changes nothing;
      - instruction sets, thread counts and CUDA do not change the bits.
    Edge cases: a factor that is negative, inf or NaN counts as 0; batch or steps 0 leave `out` as it is.
    Raises: TypeError, ValueError for another dtype, shape, device or scale; OverflowError where an int64 sum would
    leave 2^53 cells, which clipped rows on their grid cannot (on CUDA `noisy_sum` makes NaN of it instead).
    """
    _schema.ops.add_clipped_product_sum_(out, left, right, factors, mask, scale)
    return out

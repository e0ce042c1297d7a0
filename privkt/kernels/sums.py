"""Sums of clipped rows, and how far rounding can move them."""

from __future__ import annotations

import torch
from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.factors import ClipFactors


def clipped_sum(
    rows: Tensor,
    factors: Tensor,
    mask: Tensor | None = None,
    *,
    out: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The sum over b of float32(factors[b] * rows[b]), added in float64 and rounded once.

    Shapes: rows [batch, width] float32 | bfloat16, any row stride, so slices of a wider buffer too; factors [batch]
    float32; mask [batch] bool; result [width] float32. With `out`, float32 or float64 [width], the sum is added to it;
    with `out` int64 and `scale` (`grid_scale`) its cells are: out += trunc(float32(factors[b] * rows[b]) * scale).
    Guarantee:
      - a row with factor 0, or outside the mask, is not read: NaN in it changes nothing;
      - |result - exact| <= (batch 2^-53 sum_b |product_b| + 2^-24 |result|)(1 + 2^-20) in each coordinate;
      - int64 sums are exact: every split and order of the rows gives the same integers;
      - CPU instruction sets and CUDA give the same bits.
    Edge cases: batch 0 gives zeros; a factor that is negative, inf or NaN counts as 0.
    Raises: TypeError, ValueError for another dtype, shape or device; OverflowError where an int64 sum would leave
    2^53 cells, which clipped rows on their grid cannot (on CUDA `noisy_sum` makes NaN of it instead).
    """
    if out is None:
        if scale is not None:
            raise TypeError(f"clipped_sum: scale must come with an int64 out, got {scale} and none; pass one of zeros")
        return _schema.ops.clipped_sum(rows, factors, mask)
    _schema.ops.add_clipped_sum_(out, rows, factors, mask, scale)
    return out


def clip_and_sum(
    rows: Tensor, max_norm: float, mask: Tensor | None = None, *, out: Tensor, scale: float | None = None
) -> ClipFactors:
    """Clip the rows to max_norm and add them to `out`, where each sample's whole gradient is one row.

    Shapes, guarantees: those of `row_sqnorms`, `clip_factors` and `clipped_sum`, in one call.
    """
    return ClipFactors(*_schema.ops.clip_and_sum_(out, rows, max_norm, mask, scale))


def sum_slack(rows: int, calls: int, dtype: torch.dtype) -> float:
    """s such that one row more or less moves the accumulated sum by at most max_norm (1 + s), rounding included.

    rows: most rows with a factor above 0 in one logical batch; calls: calls of `clipped_sum` that add to one `out`
    of `dtype`. Every partial sum is at most rows * max_norm long. A call's float64 additions move it by at most
    rows 2^-53 of that, adding to `out` by 2^-24 (float32) or 2^-53 (float64); each of the two neighbouring sums moves.
    An int64 sum is exact: 0.
    """
    if rows < 0 or calls < 0:
        raise ValueError(
            f"sum_slack: rows and calls must not be negative, got {rows} and {calls}; count the batch's rows"
        )
    if dtype == torch.int64:
        return 0.0
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"sum_slack: dtype must be float32, float64 or int64, got {dtype}; pass the buffer's dtype")
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-53
    return 2 * rows * (rows * 2.0**-53 + calls * unit) * (1 + 2.0**-10)

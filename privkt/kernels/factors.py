"""Clip factors: how much each sample's gradient is scaled so that no stored one is longer than the clipping norm."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from privkt.kernels import _schema


class ClipFactors(NamedTuple):
    """What clipping decided about each row.

    Shapes: factors [batch] float32, 0 for rows that do not count; finite [batch] bool, False for rows with inf or NaN.
    Both depend on private data: they stay on the private side, and so does any count made from them.
    """

    factors: Tensor
    finite: Tensor


def row_sqnorms(rows: Tensor, mask: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """Square norms of the rows, summed in float64.

    Shapes: rows [batch, width] float32 | bfloat16, any row stride; mask [batch] bool; result [batch] float64.
    With `out` the norms are added to it: a sample whose gradient lies in several buffers has the sum.
    Edge cases: a row with inf or NaN gives inf or NaN; a row outside the mask gives 0 and is not read.
    Raises: TypeError, ValueError for another dtype, shape or device.
    """
    if out is None:
        return _schema.ops.row_sqnorms(rows, mask)
    _schema.ops.add_row_sqnorms_(out, rows, mask)
    return out


def clip_factors(
    sqnorms: Tensor, max_norm: float, *, width: int, mask: Tensor | None = None, slack: float = 0.0
) -> ClipFactors:
    """For each row the factor min(1, max_norm / norm), rounded down.

    Shapes: sqnorms [batch] float64, of rows with `width` elements in all buffers together; mask [batch] bool.
    slack: relative error of the norms beyond float64 summation, for norms not summed from stored rows.
    Guarantee:
      - float32(factor * row), the stored clipped row, has an exact Euclidean norm of at most max_norm;
      - a row whose norm is certainly at most max_norm has factor 1 and is unchanged;
      - a row that is not finite has factor 0.
    Edge cases: zero row, factor 1; denormal factors are rounded down too, at worst to 0; batch 0, empty results.
    Raises: TypeError, ValueError for other dtypes, shapes, max_norm not positive and finite.
    """
    return ClipFactors(*_schema.ops.clip_factors(sqnorms, max_norm, width, slack, mask))

"""The integer grid: sums of whole cells, exact in any order, so the same bits for every split of a batch.

A cell is 1 / scale. A stored clipped coordinate becomes trunc(float32(f r) * scale) cells: truncation toward zero lets
no norm grow, and integers have no rounding that depends on who else is in the sum. csrc/include/privkt/grid.h says how.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

MOST_CELLS = 2**53  # float64 holds every integer up to here
LEAST_CELLS = 2**20  # in max_norm
SCALE_RANGE = (2.0**-512, 2.0**512)
NORM_RANGE = (2.0**-126, 2.0**127)


def grid_scale(max_norm: float, rows: int) -> float:
    """Cells per unit of the finest grid on which `rows` clipped rows add up without overflow.

    rows: most rows with a factor above 0 in one logical batch, over all calls that add to one `out`; where sampling
    is Poisson, all records. Units: 1 / those of max_norm.
    Guarantee:
      - the result is a power of two, at least 2^20 / max_norm, and rows * max_norm * result < 2^53;
      - a row whose stored norm is at most max_norm is at most max_norm * result long in cells, so no sum overflows.
    Edge cases: 0 rows count as 1.
    Raises: ValueError for max_norm outside [2^-126, 2^127], negative rows, more rows than leave 2^20 cells to max_norm.
    """
    if not NORM_RANGE[0] <= max_norm <= NORM_RANGE[1]:  # NaN too
        raise ValueError(f"grid_scale: max_norm must be between 2^-126 and 2^127, got {max_norm}; rescale the losses")
    if rows < 0:
        raise ValueError(f"grid_scale: rows must not be negative, got {rows}; count the records")
    size = Fraction(max_norm) * max(rows, 1)
    exponent = 53 - math.floor(math.log2(size))
    while size * Fraction(2) ** exponent >= MOST_CELLS:  # the logarithm may be off by one either way
        exponent -= 1
    while size * Fraction(2) ** (exponent + 1) < MOST_CELLS:
        exponent += 1
    scale = 2.0**exponent
    if max_norm * scale < LEAST_CELLS:
        raise ValueError(
            f"grid_scale: rows must be few enough to leave max_norm 2^20 cells, 2^32 at most, got {rows}; "
            "add up float64 sums, or say the cap of a batch"
        )
    return scale


def units_of(total: Tensor, scale: float) -> Tensor:
    """The float64 value of an int64 sum, exact; NaN for a coordinate that overflowed.

    Raises: OverflowError for such a coordinate on the CPU, where looking costs no waiting for a device.
    """
    fits = (total >= -MOST_CELLS) & (total <= MOST_CELLS)
    if total.device.type == "cpu" and not bool(fits.all()):
        raise OverflowError(
            "noisy_sum: total must stay within 2^53 cells, got a coordinate beyond; "
            "start again with the scale of grid_scale(max_norm, rows) for all rows of the batch"
        )
    return torch.where(fits, total.double() * (1 / scale), torch.nan)


def need_fit(op: str, fits: bool) -> None:
    """Raises OverflowError unless every coordinate's cells could be summed exactly."""
    if not fits:
        raise OverflowError(
            f"{op}: a sum must stay within 2^53 cells, got a coordinate beyond; drop this sum and start again with the "
            "scale of grid_scale(max_norm, rows), rows being all of the batch, and factors of clip_factors"
        )

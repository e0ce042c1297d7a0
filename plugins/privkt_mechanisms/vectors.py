"""Vectors on an integer grid: what Gaussian and Laplace noise of integers is added to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkt.privacy import Neighbouring, RefusedInput

CELLS = 1 << 20  # of the grid in one clipping norm
_SHRINK = 1 - 2.0**-40


class ClippedGrid:
    """Clips a vector of `size` numbers to a norm of `clip`, and truncates it toward zero to cells of clip / CELLS.

    Guarantee: the integers have L1 (order 1) or L2 (order 2) norm at most CELLS, checked in integers.
    Edge cases: zeros and short vectors stay as they are, but for the truncation; the time depends on the vector.
    Raises: RefusedInput, for parameters that are no size or norm, and values of another length or not finite.
    """

    def __init__(self, subject: str, size: int, clip: float, order: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < 1 << 40:
            raise RefusedInput(f"{subject}: size must be a whole number >= 1, got {size!r}; it is public")
        if isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < math.inf:
            raise RefusedInput(f"{subject}: clip must be a finite norm > 0, got {clip!r}; choose it without the data")
        self.subject, self.size, self.clip, self.order = subject, size, float(clip), order

    def cells(self, value: ArrayLike) -> NDArray[np.int64]:
        vector = np.asarray(value) if isinstance(value, Sequence | np.ndarray) else np.zeros(())
        shaped = vector.shape == (self.size,) and vector.dtype.kind in "fiu"
        if not shaped or not np.isfinite(vector).all():
            raise RefusedInput(
                f"{self.subject}: a value must be {self.size} finite numbers, got something else; pad or cut it to the "
                "public size"
            )
        scaled = vector.astype(np.float64)
        # at most 1 each, so that neither a quotient nor a square overflows
        scaled = scaled / max(self.clip, float(np.abs(scaled).max()))
        norm = float(np.linalg.norm(scaled, self.order))
        if norm > 1:
            scaled = scaled / norm
        while True:
            found = np.trunc(scaled * CELLS).astype(np.int64)
            if self._fits(found):
                return found
            scaled = scaled * _SHRINK

    def _fits(self, cells: NDArray[np.int64]) -> bool:
        whole = [int(c) for c in cells]
        return sum(abs(c) ** self.order for c in whole) <= CELLS**self.order

    def why_not_neighbours(self, one: ArrayLike, other: ArrayLike, neighbouring: Neighbouring) -> str | None:
        """Why two vectors are not what one unit can make of each other, or None if they are."""
        if _other_vector(neighbouring) or not (self.cells(one).any() and self.cells(other).any()):
            return None
        return f"under {neighbouring} one of them is all zeros, and neither is"

    def values(self, cells: Sequence[int]) -> tuple[float, ...]:
        """Cells back in the units of the vector: a function of what was released alone."""
        return tuple(c * (self.clip / CELLS) for c in cells)


def sensitivity(neighbouring: Neighbouring) -> int:
    """Cells that one unit can move the vector by: its norm, or twice that where it is replaced by another."""
    return CELLS * (2 if _other_vector(neighbouring) else 1)


def _other_vector(neighbouring: Neighbouring) -> bool:
    """Whether a unit's vector becomes any other, and not zeros."""
    return neighbouring in (Neighbouring.REPLACE_ONE, Neighbouring.LOCAL)

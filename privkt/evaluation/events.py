"""Which outputs tell two inputs apart best: chosen on some draws, so that others can be counted honestly."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privkt.evaluation.confidence import Counts, Floats, least_share, most_share

Cells = NDArray[np.int64]
Event = NDArray[np.bool_]  # of cells

_BINS = 512


class Coding:
    """Outputs as cells, fixed by some draws of both inputs: equal outputs fall into one cell, alike ones may.

    Outputs may be whole numbers, labels or anything hashable, and numbers or vectors of numbers. Vectors become their
    coordinate along the two inputs' difference; many different numbers become quantile bins. `ordered`: whether cells
    stand in the order of numbers. The last cell takes what was not seen.
    """

    def __init__(self, drawn: Sequence[Any], pair: tuple[Any, Any]) -> None:
        self._direction = _direction(pair, drawn[0])
        numbers = self._numbers(drawn)
        self.ordered = numbers is not None
        self._place: Callable[[Sequence[Any]], Cells]
        if numbers is None:
            cells: dict[Hashable, int] = {}
            for output in drawn:
                cells.setdefault(_hashable(output), len(cells))
            self.size = len(cells) + 1
            self._place = lambda outputs: np.asarray([cells.get(_hashable(o), len(cells)) for o in outputs], np.int64)
            return
        values = np.unique(numbers)
        if len(values) > _BINS:
            values = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS)))
        # a bin is [value, next value); everything below the first is the cell 0
        self.size = len(values) + 1
        self._place = lambda outputs: np.searchsorted(values, np.asarray(self._numbers(outputs)), side="right").astype(
            np.int64
        )

    def cells(self, outputs: Sequence[Any]) -> Cells:
        """Shapes: [n], in [0, size)."""
        return self._place(outputs)

    def counts(self, outputs: Sequence[Any]) -> Counts:
        """Shapes: [size]."""
        return np.bincount(self.cells(outputs), minlength=self.size)

    def _numbers(self, outputs: Sequence[Any]) -> Floats | None:
        if self._direction is not None:
            return np.asarray(outputs, dtype=np.float64) @ self._direction
        found = np.asarray(outputs)
        return found.astype(np.float64) if found.ndim == 1 and found.dtype.kind in "fiu" else None


class Words:
    """The coding of a token mechanism: every word of the vocabulary is a cell of its own."""

    ordered = False

    def __init__(self, size: int) -> None:
        self.size = size

    def counts(self, outputs: Cells) -> Counts:
        """Shapes: [size]."""
        return np.bincount(outputs, minlength=self.size)


def best_event(
    first: tuple[Counts, Counts],
    second: tuple[Counts, Counts],
    *,
    draws: int,
    risk: float,
    delta: float = 0.0,
    ordered: bool = False,
    known: Cells | None = None,
) -> tuple[Event, float]:
    """The event with the best lower bound on epsilon in the `second` counts, among those that the `first` suggest.

    Suggested are prefixes of cells by the first counts' ratio; of `known`, an order that comes from the law; and of the
    cells' own order, from both ends, where they are `ordered`. `draws`: of each input, behind the second counts.
    Returns: the event, and its bound there (which is chosen, hence no bound of anything).
    """
    a, b = (side.astype(np.float64) for side in first)
    orders = [np.argsort(-(a + 0.5) / (b + 0.5), kind="stable")]
    if known is not None:
        orders.append(known)
    if ordered:
        orders += [np.arange(len(a)), np.arange(len(a))[::-1]]
    best, bound = np.zeros(len(a), dtype=bool), -np.inf
    for order in orders:
        hits, misses = np.cumsum(second[0][order]), np.cumsum(second[1][order])
        found = lower_bound(hits, misses, draws, risk, delta)
        at = int(found.argmax())
        if found[at] > bound:
            bound = float(found[at])
            best = np.zeros(len(a), dtype=bool)
            best[order[: at + 1]] = True
    return best, bound


def lower_bound(hits: Counts, misses: Counts, draws: int, risk: float, delta: float) -> Floats:
    """ln((p_low - delta) / q_high): below epsilon unless one of two events of probability `risk` happened.

    Edge cases: minus infinity where p_low is not above delta.
    """
    held = least_share(np.asarray(hits), draws, risk) - delta
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(held > 0, np.log(held / most_share(np.asarray(misses), draws, risk)), -np.inf)


def _direction(pair: tuple[Any, Any], output: Any) -> Floats | None:
    """The unit vector from one input to the other, where both and the output are vectors of one length."""
    if any(isinstance(one, str | bytes) or not isinstance(one, Sequence | np.ndarray) for one in (*pair, output)):
        return None
    try:
        x, y, z = (np.asarray(one, dtype=np.float64) for one in (*pair, output))
    except (TypeError, ValueError):
        return None
    if x.ndim != 1 or not x.shape == y.shape == z.shape or not (x != y).any():
        return None
    apart = x - y
    return np.asarray(apart / np.linalg.norm(apart), dtype=np.float64)


def _hashable(output: Any) -> Hashable:
    return tuple(_hashable(one) for one in output) if isinstance(output, list | np.ndarray) else output

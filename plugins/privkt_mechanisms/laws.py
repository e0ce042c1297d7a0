"""Laws of one token given another: what is drawn, its probabilities, and the epsilon that enumerating them finds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from privkt_mechanisms import uniform
from privkt_mechanisms.byte_table import Floats, Ids, Integers, LevelledTable
from privkt_mechanisms.weights import epsilon_range

Bytes = uniform.Bytes
_ROWS = 256


class Law(ABC):
    """A row-stochastic matrix [V, V], never held whole. `slack`: how wrong a computed log probability can be."""

    slack: float = 1e-12

    def __init__(self, levelled: LevelledTable) -> None:
        self.levelled, self.size = levelled, levelled.size

    @property
    @abstractmethod
    def epsilon_range(self) -> float:
        """A bound between any two inputs that needs no enumeration."""

    @abstractmethod
    def rows(self, ids: Ids) -> Floats:
        """Probabilities. Shapes: ids [n]; result [n, V]."""

    @abstractmethod
    def draw_block(self, ids: Ids) -> Ids:
        """One independent draw each, for few ids."""

    def log_rows(self, ids: Ids) -> Floats:
        with np.errstate(divide="ignore"):
            return np.log(self.rows(ids))

    def draw(self, ids: Ids) -> Ids:
        step = max(1, min(_ROWS, (1 << 22) // self.size))
        parts = [self.draw_block(ids[start : start + step]) for start in range(0, len(ids), step)]
        return np.concatenate(parts) if parts else ids.astype(np.int64)

    def epsilon_exact(self) -> float:
        """max over y of (max over x of ln p(y|x) - min over x of ln p(y|x)), rounded up by twice the slack."""
        highest = np.full(self.size, -math.inf)
        lowest = np.full(self.size, math.inf)
        for ids in self.levelled.table.blocks():
            logs = self.log_rows(ids)
            np.maximum(highest, logs.max(axis=0), out=highest)
            np.minimum(lowest, logs.min(axis=0), out=lowest)
        seen = np.isfinite(highest)  # a word that nothing becomes costs nothing
        return float((highest[seen] - lowest[seen]).max()) + 2 * self.slack


class WeightedLaw(Law):
    """A law made of integer weights[level(x, y)] that never grow with the level."""

    def __init__(self, levelled: LevelledTable, weights: Integers) -> None:
        super().__init__(levelled)
        self.weights = weights

    @property
    def epsilon_range(self) -> float:
        return epsilon_range(self.weights)

    def weight_rows(self, ids: Ids) -> Integers:
        return self.weights[self.levelled.rows(ids)]


class IntegerLaw(WeightedLaw):
    """p(y|x) = weights[level(x, y)] / total(x): the exponential mechanism of an integer weight table.

    Guarantee: the draw is exact: one uniform integer below the total, no decision in floating point.
    """

    def rows(self, ids: Ids) -> Floats:
        weights = self.weight_rows(ids)
        return weights / weights.sum(axis=1, keepdims=True)

    def log_rows(self, ids: Ids) -> Floats:
        levels = self.levelled.rows(ids)
        totals = self.weights[levels].sum(axis=1)
        return np.log(self.weights)[levels] - np.log(totals)[:, None]

    def draw_block(self, ids: Ids) -> Ids:
        weights = self.weight_rows(ids)
        return selected(weights, uniform.below(weights.sum(axis=1)))


class MixedLaw(Law):
    """Each of several integer laws of one table with the same probability, chosen without a look at the input."""

    def __init__(self, laws: Sequence[IntegerLaw]) -> None:
        super().__init__(laws[0].levelled)
        self.laws = tuple(laws)

    @property
    def epsilon_range(self) -> float:
        return max(law.epsilon_range for law in self.laws)

    def rows(self, ids: Ids) -> Floats:
        whole = np.zeros((len(ids), self.size))
        for law in self.laws:
            whole += law.rows(ids)
        return whole / len(self.laws)

    def draw_block(self, ids: Ids) -> Ids:
        which = uniform.below(np.full(len(ids), len(self.laws)))
        found = np.empty(len(ids), dtype=np.int64)
        for number, law in enumerate(self.laws):
            mine = which == number
            if mine.any():
                found[mine] = law.draw_block(ids[mine])
        return found


def selected(weights: Integers, points: Integers) -> Ids:
    """Row by row, the first column whose running sum exceeds the point. Shapes: weights [n, V], points [n]."""
    return (np.cumsum(weights, axis=1) <= points[:, None]).sum(axis=1)

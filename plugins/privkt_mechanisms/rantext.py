"""RANTEXT as published: words out of a list of random radius around the private one. No guarantee."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from privkt_mechanisms import uniform
from privkt_mechanisms.byte_table import Floats, Ids, Integers, LevelledTable, byte_table, levels_up_to
from privkt_mechanisms.calibration import asked
from privkt_mechanisms.laws import WeightedLaw, selected
from privkt_mechanisms.unproven import Unproven
from privkt_mechanisms.weights import decaying_weights

REASON = "the list of candidates depends on the private word"
_RADII, _MOST_CELLS = 1 << 16, 1 << 24


class RanText(Unproven):
    """A radius by Laplace noise on the word's own vector, then y with weight exp(epsilon u / 2) of the words within it.

    u = 1 - d/diameter. Noise has scale (range of the coordinate) / Z(`epsilon`), as published. Radii are the norms of
    2^16 such noises (fewer for long vectors), drawn once from the public `seed`, one of them at random for each token:
    so the law is known, and `law.epsilon_exact()` is what a token really loses.
    Guarantee: none: two words at distance 1 lose at least ln(2 e^Z - 1), 1.49 at a claimed epsilon of 1 and 10.05 at 3,
        and words farther apart than the largest radius lose everything. For comparison.
    References: Tong, Chen, Zhang, Wang, Zhang, Yu 2023, "InferDPT", Section 4.
    """

    name = "rantext"
    reason = REASON

    def __init__(self, table: ArrayLike, epsilon: Fraction | float | str, *, seed: int = 0) -> None:
        self.epsilon, self.calibrate = asked(self.name, epsilon, "range"), "none"
        self.sharpness = self.epsilon
        self.table = byte_table(self.name, table)
        self.size = self.table.size
        vectors = np.asarray(table, dtype=np.float64)
        scales = np.ptp(vectors, axis=0) / noise_rate(self.epsilon)
        norms = laplace_norms(scales, seed)
        levelled = LevelledTable(self.table, levels_up_to(self.table.extremes[1]))
        squares = np.minimum((norms * self.table.scale) ** 2, 2.0**40).astype(np.int64)
        reached = levelled.levels.of(squares)
        weights = decaying_weights(self.epsilon, levelled.levels.last, self.size)
        self.law = ListLaw(levelled, weights, functools.partial(_same_for_all, reached), len(reached))


def _same_for_all(reached: Integers, ids: Ids, which: Integers) -> Integers:
    return np.broadcast_to(reached[which], (len(ids), which.shape[1]))


class ListLaw(WeightedLaw):
    """p(y|x): one of the radii of x, each as likely, then a weight's share among the words within it.

    `radii(ids, which)`: the levels [n, k] of these radii of each id, `which` [n or 1, k] out of `number`. No bound
    holds for any input.
    """

    def __init__(
        self, levelled: LevelledTable, weights: Integers, radii: Callable[[Ids, Integers], Integers], number: int
    ) -> None:
        super().__init__(levelled, weights)
        self.radii, self.number = radii, number

    @property
    def epsilon_range(self) -> float:
        return math.inf

    def rows(self, ids: Ids) -> Floats:
        levels, number = self.levelled.rows(ids), len(self.weights)
        reached = self.radii(ids, np.arange(self.number)[None])
        first = np.arange(len(ids))[:, None] * number
        counts = np.bincount((first + levels).ravel(), minlength=len(ids) * number).reshape(-1, number)
        shares = np.bincount((first + reached).ravel(), minlength=len(ids) * number).reshape(-1, number)
        within = np.cumsum(counts * self.weights, axis=1)
        by_radius = shares / self.number / within
        by_level: Floats = np.cumsum(by_radius[:, ::-1], axis=1)[:, ::-1] * self.weights.astype(np.float64)
        return np.take_along_axis(by_level, levels, axis=1)

    def draw_block(self, ids: Ids) -> Ids:
        radius = self.radii(ids, uniform.below(np.full(len(ids), self.number))[:, None])
        levels = self.levelled.rows(ids)
        weights = np.where(levels <= radius, self.weights[levels], 0)
        return selected(weights, uniform.below(weights.sum(axis=1)))


def noise_rate(epsilon: float) -> float:
    """Z of the published mechanism: epsilon below 2, then a fitted curve that starts above 9."""
    return epsilon if epsilon < 2 else 0.0165 * math.log(19.0648 * epsilon - 38.1294) + 9.3111


def laplace_norms(scales: Floats, seed: int) -> Floats:
    """Norms of vectors of independent Laplace noise of these scales, from a public seed; in one dimension quantiles."""
    if len(scales) == 1:  # |Laplace| is exponential
        return -scales[0] * np.log((np.arange(_RADII) + 0.5) / _RADII)
    generator = np.random.default_rng(seed)
    number = max(1 << 10, min(_RADII, _MOST_CELLS // len(scales)))
    norms = [
        np.sqrt((generator.laplace(size=(256, len(scales))) ** 2 * scales**2).sum(axis=1)) for _ in range(number // 256)
    ]
    return np.concatenate(norms)

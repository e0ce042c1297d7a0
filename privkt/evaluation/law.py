"""What is read off a token mechanism's law: row by row in blocks, so that no [V, V] array is ever made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privkt.contracts.tokens import TokenMechanism

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

_CELLS = 1 << 22  # of a block of rows, 32 MiB
_PAIRED = 256  # words whose pairs are all compared
_READ, _LEAST_READ = 256, 16  # words whose survival is read: of all laws together, and of each


class Reading(Protocol):
    """Something that is computed from blocks of rows as they come."""

    def add(self, ids: Ids, rows: Floats) -> None:
        """Shapes: ids [n]; rows [n, V], the law of each."""


def read_law(mechanism: TokenMechanism, readings: Sequence[Reading], ids: Ids | None = None) -> None:
    """Shows every reading the rows of `ids` (of all inputs where left out), in order, once."""
    wanted = np.arange(mechanism.size) if ids is None else ids
    step = max(1, _CELLS // mechanism.size)
    for start in range(0, len(wanted), step):
        block = wanted[start : start + step]
        rows = mechanism.probabilities(block)
        for reading in readings:
            reading.add(block, rows)


class Extremes:
    """Of each output: its largest and smallest probability over the inputs read, and which inputs have them."""

    def __init__(self, size: int) -> None:
        self.highest, self.lowest = np.full(size, -math.inf), np.full(size, math.inf)
        self.likeliest, self.unlikeliest = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)

    def add(self, ids: Ids, rows: Floats) -> None:
        for best, whose, sign in ((self.highest, self.likeliest, 1), (self.lowest, self.unlikeliest, -1)):
            at = rows.argmax(axis=0) if sign > 0 else rows.argmin(axis=0)
            found = np.take_along_axis(rows, at[None], axis=0)[0]
            better = sign * found > sign * best
            best[better], whose[better] = found[better], ids[at[better]]

    @property
    def loss(self) -> float:
        """The largest log ratio of one output's probabilities; infinite where only some inputs give it."""
        seen = self.highest > 0
        if (self.lowest[seen] <= 0).any():
            return math.inf
        return float((np.log(self.highest[seen]) - np.log(self.lowest[seen])).max())


class Survival:
    """How often an input drawn from `prior` comes out as itself."""

    def __init__(self, prior: Floats) -> None:
        self.prior, self.share = prior, 0.0

    def add(self, ids: Ids, rows: Floats) -> None:
        self.share += float(self.prior[ids] @ rows[np.arange(len(ids)), ids])


@dataclass(frozen=True)
class Unchanged:
    """How often a word comes out as itself: the mean over `read` words of the vocabulary's `size`, each alike."""

    share: float
    read: int
    size: int


def unchanged(mechanisms: Sequence[TokenMechanism], *, seed: int = 0) -> Unchanged | None:
    """The mean over the positions' mechanisms of a word's chance to come out unchanged; None where a law is unknown.

    Public: it is read off the laws, of all words or of as many, drawn from the public `seed`, as take no longer than a
    second or two.
    """
    if not all(one.has_law for one in mechanisms):
        return None
    size, distinct = mechanisms[0].size, list(dict.fromkeys(mechanisms))
    number = min(size, max(_LEAST_READ, _READ // len(distinct), _CELLS // size // len(distinct)))
    every = np.arange(size)
    ids = every if number == size else np.sort(np.random.default_rng(seed).choice(every, number, replace=False))
    share = 0.0
    for one in distinct:
        reading = Survival(np.full(size, 1 / number))
        read_law(one, [reading], ids)
        share += reading.share * mechanisms.count(one) / len(mechanisms)
    return Unchanged(share, number, size)


@dataclass(frozen=True)
class PairLosses:
    """What pairs of words lose: the larger of the two directions. `losses` [pairs]; infinity where all is told.

    `own` [ordered pairs]: what the private word loses when it comes out itself, ln p(x|x) / p(x|x'). `words`: how many
    words were paired, each with each; `size`: out of how many.
    """

    words: int
    size: int
    losses: Floats
    own: Floats

    def share_above(self, epsilon: float) -> float:
        """Of pairs; a rounding error above epsilon does not count."""
        return _share_above(self.losses, epsilon)

    def own_share_above(self, epsilon: float) -> float:
        """Of ordered pairs, by the private word's own survival alone."""
        return _share_above(self.own, epsilon)

    @property
    def worst(self) -> float:
        return float(self.losses.max(initial=0.0))


def pair_losses(mechanism: TokenMechanism, *, seed: int = 0) -> PairLosses:
    """Pairs of all words, or of as many as memory is for, drawn from the public `seed`: their true losses."""
    number = min(mechanism.size, _PAIRED, max(16, _CELLS // mechanism.size))
    every = np.arange(mechanism.size)
    words = every if number == mechanism.size else np.random.default_rng(seed).choice(every, number, replace=False)
    with np.errstate(divide="ignore"):
        logs = np.log(mechanism.probabilities(np.sort(words)))
    with np.errstate(invalid="ignore"):
        own = np.diag(logs[:, np.sort(words)])[None] - logs[:, np.sort(words)]
    own = np.where(np.isnan(own), 0.0, own)[~np.eye(number, dtype=bool)]
    found = [np.zeros(0)]
    for place in range(1, number):
        with np.errstate(invalid="ignore"):
            apart = np.abs(logs[:place] - logs[place])  # nan where neither gives the output
        found.append(np.nanmax(np.where(np.isnan(apart), 0.0, apart), axis=1))
    return PairLosses(number, mechanism.size, np.concatenate(found), own)


def _share_above(losses: Floats, epsilon: float) -> float:
    return float((losses > epsilon * (1 + 1e-9) + 1e-9).mean()) if len(losses) else 0.0


def likelihood_order(p: Floats, q: Floats) -> Ids:
    """Outputs by p / q, the largest first; those that neither gives come last."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(p > 0, p / q, np.where(q > 0, 0.0, -1.0))
    return np.argsort(-ratio, kind="stable")


def true_epsilon(p: Floats, q: Floats, delta: float = 0.0) -> float:
    """The least epsilon with p <= e^epsilon q + delta for every event, of two enumerated laws of the same outputs.

    Proof: the worst events are those of the largest ratios p / q (Neyman and Pearson), so the prefixes of that order.
    """
    order = likelihood_order(p, q)
    mass, other = np.cumsum(p[order]) - delta, np.cumsum(q[order])
    held = mass > 1e-15
    if not held.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return max(0.0, float(np.log(mass[held] / other[held]).max()))

"""CUSTEXT: words are only exchanged within small fixed sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from privkt.privacy import Certificate, RefusedInput
from privkt_mechanisms import uniform
from privkt_mechanisms.byte_table import (
    MOST_LEVEL,
    ByteTable,
    Floats,
    Ids,
    Integers,
    LevelledTable,
    byte_table,
    levels_up_to,
)
from privkt_mechanisms.calibration import asked, sharpest
from privkt_mechanisms.keeping import KeepingLaw, word_mask
from privkt_mechanisms.laws import Law, selected
from privkt_mechanisms.unproven import Unproven
from privkt_mechanisms.weights import decaying_weights, epsilon_range


class CusText(Unproven):
    """Draws word y of the set of word x with probability proportional to exp(s u(x, y) / 2), u = 1 - d/widest.

    The sets are one fixed partition of the vocabulary: word by word, each that has no set yet takes the nearest
    `neighbours` - 1 that have none either. `epsilon` and `calibrate` speak of two words of one set: `inside` is that
    certificate. u uses the widest distance of the set.
    Guarantee: none between any two words: which set a word is in is told in clear. Pure epsilon `inside.epsilon`
        between words of one set (docs/proofs/tokens.md).
    Edge cases: what is left over after the last whole set joins it, so that no word is alone unless V is 1.
    Raises: RefusedInput, as `Exponential` does; for `neighbours` below 2.
    References: Chen, Mo, Wang, Chen, Nie, Wang, Cui 2023, "A Customized Text Sanitization Mechanism with Differential
        Privacy".
    """

    name = "custext"
    reason = "the set of a word is told in clear"

    def __init__(
        self, table: ArrayLike, epsilon: Fraction | float | str, *, neighbours: int = 20, calibrate: str = "exact"
    ) -> None:
        self.epsilon, self.calibrate = asked(self.name, epsilon, calibrate), calibrate
        if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 2:
            raise RefusedInput(
                f"{self.name}: neighbours must be a whole number >= 2, got {neighbours!r}; 20 is what was published"
            )
        self.neighbours = neighbours
        self.table = byte_table(self.name, table)
        self.size = self.table.size
        self.sets = partition(self.table, neighbours)
        self._levels = self._levels_inside()
        self.sharpness, self.law, self.inside = sharpest(
            self.name, self._law, self.epsilon, exactly=calibrate == "exact", bounded_range=True
        )

    def _law(self, sharpness: float) -> SetLaw:
        weights = decaying_weights(sharpness, MOST_LEVEL, self.sets.shape[1])
        return SetLaw(self.table, self.sets, self._levels, weights)

    def _levels_inside(self) -> Integers:
        """[V, widest set]: the level of each word of one's own set; -1 where there is none."""
        levels = np.full((self.size, self.sets.shape[1]), -1, dtype=np.int64)
        for members in self.sets:
            members = members[members >= 0]
            rows = self.table.rows[members].astype(np.int64)
            distances = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
            widest = float(distances.max()) or 1.0
            levels[members, : len(members)] = np.floor(distances / widest * MOST_LEVEL)
        return levels

    def parameters(self) -> Mapping[str, Any]:
        inside: Certificate = self.inside
        return {
            **super().parameters(),
            "neighbours": self.neighbours,
            "epsilon_range_inside": inside.epsilon_range,
            "epsilon_exact_inside": inside.epsilon_exact,
        }


class CusTextPlus(CusText):
    """`CusText`, but words of the public list `ordinary` (stop words) stay as they are.

    Guarantee: none at all for the words that stay.
    """

    name = "custext_plus"
    reason = "ordinary words stay as they are, and the set of any other word is told in clear"

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        ordinary: ArrayLike,
        neighbours: int = 20,
        calibrate: str = "exact",
    ) -> None:
        super().__init__(table, epsilon, neighbours=neighbours, calibrate=calibrate)
        self.ordinary = word_mask(self.name, "ordinary", ordinary, self.size)
        self.law = KeepingLaw(self.law, self.ordinary, Fraction(1))

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "ordinary": int(self.ordinary.sum())}


class SetLaw(Law):
    """p(y|x) = weights[level(x, y)] / their sum over the set of x; 0 outside it. All bounds are those inside a set.

    Shapes: sets [sets, widest], ids padded with -1; levels [V, widest], places of the own set, padded with -1.
    """

    def __init__(self, table: ByteTable, sets: Integers, levels: Integers, weights: Integers) -> None:
        super().__init__(LevelledTable(table, levels_up_to(1)))
        self.sets, self.levels, self.weights = sets, levels, weights
        self.own = np.empty(self.size, dtype=np.int64)
        for number, members in enumerate(sets):
            self.own[members[members >= 0]] = number

    @property
    def epsilon_range(self) -> float:
        return epsilon_range(self.weights)

    def _weights(self, ids: Ids) -> Integers:
        levels = self.levels[ids]
        return np.where(levels >= 0, self.weights[levels], 0)

    def draw_block(self, ids: Ids) -> Ids:
        weights = self._weights(ids)
        places = selected(weights, uniform.below(weights.sum(axis=1)))
        return self.sets[self.own[ids], places]

    def rows(self, ids: Ids) -> Floats:
        weights = self._weights(ids)
        rows = np.zeros((len(ids), self.size + 1))  # the last column takes the padding
        np.put_along_axis(rows, self.sets[self.own[ids]], weights / weights.sum(axis=1, keepdims=True), axis=1)
        return rows[:, :-1]

    def epsilon_exact(self) -> float:
        worst = 0.0
        for members in self.sets:
            ids = members[members >= 0]
            logs = np.log(self.rows(ids)[:, ids])
            worst = max(worst, float((logs.max(axis=0) - logs.min(axis=0)).max()))
        return worst + 2 * self.slack


def partition(table: ByteTable, neighbours: int) -> Integers:
    """Disjoint sets of the vocabulary, [sets, widest] ids padded with -1: public, and a function of the table alone."""
    number = max(1, table.size // neighbours)
    free = np.ones(table.size, dtype=bool)
    sets: list[Integers] = []
    for _ in range(number - 1):
        first = int(np.argmax(free))
        squares = table.squares(np.array([first]))[0]
        squares[~free] = np.iinfo(np.int64).max
        squares[first] = -1
        members = np.argsort(squares, kind="stable")[:neighbours]
        free[members] = False
        sets.append(members)
    sets.append(np.flatnonzero(free))
    widest = max(len(members) for members in sets)
    padded = np.full((number, widest), -1, dtype=np.int64)
    for row, members in zip(padded, sets, strict=True):
        row[: len(members)] = members
    assert math.isclose(float((padded >= 0).sum()), table.size)
    return padded

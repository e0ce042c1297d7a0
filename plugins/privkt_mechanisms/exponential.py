"""The exponential mechanism over the words of a public table."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from privkt.privacy import RefusedInput
from privkt_mechanisms.byte_table import LevelledTable, byte_table, levels_up_to
from privkt_mechanisms.calibration import asked, sharpest
from privkt_mechanisms.laws import Law
from privkt_mechanisms.native_law import NativeLaw
from privkt_mechanisms.tokens import TableMechanism, timing_of
from privkt_mechanisms.weights import decaying_weights

UTILITIES = ("distance", "cosine")


class Exponential(TableMechanism):
    """Draws word y for word x with probability proportional to exp(s u(x, y) / 2), u in [0, 1], over all words.

    `utility`: "distance", u = 1 - d/diameter; "cosine", u falls with 1 - cos and the vectors' lengths do not count.
    `calibrate`: "exact" takes the sharpest s whose enumerated epsilon is within `epsilon`; "range" takes s = epsilon,
    which holds for any input, with no pass over all pairs of words.
    `timing`: "fixed" makes every draw take the same rounds; else how long one takes tells about the word.
    Shapes: table [V, D], public.
    Guarantee: pure epsilon `certificate.epsilon` <= `epsilon` between any two tokens (docs/proofs/tokens.md).
    Edge cases: words of equal vectors have equal laws; a table of one point draws uniformly and costs 0.
    Raises: RefusedInput, for a table that is not finite, an epsilon outside what the weights' bits hold, unknown ids.
    References: McSherry, Talwar 2007; Durfee, Rogers 2019 (bounded range); Dong, Durfee, Rogers 2020.
    """

    name = "exponential"
    bounded_range = True

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        calibrate: str = "exact",
        utility: str = "distance",
        timing: str = "fast",
    ) -> None:
        self.timing = timing_of(self.name, timing)
        self.epsilon, self.calibrate = asked(self.name, epsilon, calibrate), calibrate
        if utility not in UTILITIES:
            raise RefusedInput(f"{self.name}: utility must be distance or cosine, got {utility!r}; name one of them")
        self.utility = utility
        cosine = utility == "cosine"
        self.table = byte_table(self.name, table, cosine=cosine)
        self.size = self.table.size
        self.levelled = LevelledTable(self.table, levels_up_to(self.table.extremes[1], root=not cosine))
        self.sharpness, self.law, self._certificate = sharpest(
            self.name, self._law, self.epsilon, exactly=calibrate == "exact", bounded_range=self.bounded_range
        )

    def _law(self, sharpness: float) -> Law:
        return NativeLaw(
            self.levelled,
            decaying_weights(sharpness, self.levelled.levels.last, self.size),
            fixed=self.timing == "fixed",
        )

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "utility": self.utility, "timing": self.timing}

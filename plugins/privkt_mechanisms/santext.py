"""SANTEXT: every word by its distance, and its plus form that leaves ordinary words alone."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from privkt_mechanisms.keeping import KeepingLaw, keep_share, word_mask
from privkt_mechanisms.metric import MetricMechanism
from privkt_mechanisms.unproven import Unproven


class SanText(MetricMechanism):
    """Draws word y for word x with probability proportional to exp(-k d(x, y) / 2), over all words.

    `calibrate`: "exact" (default) and "range" take `epsilon` for what any two words may cost; "metric" takes it for k,
    nats a unit of distance, as published.
    `timing`: that of `Exponential`.
    Guarantee: metric: k a unit of distance plus what rounding adds; pure epsilon `certificate.epsilon` for any two
        words (docs/proofs/tokens.md). Both are in `parameters`.
    Raises: RefusedInput, as `Exponential` does; also where k times the diameter is more than the weights' bits hold.
    References: Yue, Du, Wang, Li, Sun, Chow 2021, "Differential Privacy for Text Analytics via Natural Text
        Sanitization", Theorem 1.
    """

    name = "santext"

    def __init__(
        self, table: ArrayLike, epsilon: Fraction | float | str, *, calibrate: str = "exact", timing: str = "fast"
    ) -> None:
        self._set_up(table, epsilon, calibrate, None, 1.0, timing)


class SanTextPlus(Unproven, SanText):
    """`SanText`, but words of the public list `ordinary` stay as they are with probability `keep`.

    Guarantee: none: a word that stays says what it was (kind none, an infinite spend). For comparison.
    References: the same paper, Section 4.3; its p is 1 - `keep`.
    """

    name = "santext_plus"
    reason = "ordinary words stay as they are"

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        ordinary: ArrayLike,
        keep: Fraction | float | str = 0.7,
        calibrate: str = "exact",
    ) -> None:
        super().__init__(table, epsilon, calibrate=calibrate)
        self.keep = keep_share(self.name, keep)
        self.ordinary = word_mask(self.name, "ordinary", ordinary, self.size)
        self.sanitising = self._certificate  # of the words that are not ordinary among themselves
        self.law = KeepingLaw(self.law, self.ordinary, self.keep)

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "keep": float(self.keep), "ordinary": int(self.ordinary.sum())}

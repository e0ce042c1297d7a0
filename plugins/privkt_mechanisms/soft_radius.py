"""The exponential mechanism on a random radius that does not depend on the word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from numpy.typing import ArrayLike

from privkt.privacy import RefusedInput
from privkt_mechanisms.exponential import Exponential
from privkt_mechanisms.laws import Law, MixedLaw
from privkt_mechanisms.native_law import NativeLaw
from privkt_mechanisms.weights import decaying_weights

RADII = (0.25, 0.5, 0.75, 1.0)


class SoftRadius(Exponential):
    """Draws a radius r from a public list, then y with probability proportional to exp(s max(0, 1 - d/r) / 2).

    All words can come at every radius: what RANTEXT's adaptive list means to do, with a proof. `radii` are shares of
    the diameter, each as likely as the others. `epsilon`, `calibrate`, errors: those of `Exponential`.
    Guarantee: pure epsilon `certificate.epsilon` <= `epsilon` between any two tokens (docs/proofs/tokens.md); the
        radius has a law fixed before the word is seen, and is not released.
    Raises: RefusedInput, also for radii outside (0, 1].
    """

    name = "soft_radius"

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        calibrate: str = "exact",
        radii: Sequence[float] = RADII,
    ) -> None:
        self.radii = tuple(float(r) for r in radii)
        if not self.radii or not all(0 < r <= 1 for r in self.radii):
            raise RefusedInput(
                f"{self.name}: radii must be shares of the diameter in (0, 1], got {list(self.radii)}; "
                "they are public and fixed before any text is seen"
            )
        super().__init__(table, epsilon, calibrate=calibrate)

    def _law(self, sharpness: float) -> Law:
        last = self.levelled.levels.last
        laws = []
        for radius in self.radii:
            weights = decaying_weights(sharpness, last, self.size, max(1, int(radius * last)))
            laws.append(NativeLaw(self.levelled, weights))
        return MixedLaw(laws)

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "radii": list(self.radii)}

"""A yes-no answer that is true with given odds."""

from __future__ import annotations

import math
import secrets
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from privkt.contracts import Mechanism
from privkt.privacy import Guarantee, Kind, Neighbouring, RefusedInput, Unit, pure_event

if TYPE_CHECKING:
    from dp_accounting import DpEvent

PROOF = "Warner 1965, Randomized response; the ratio of both answers is the odds"


class Coin(Mechanism[bool, bool]):
    """Tells the truth with odds `truth` to `lie`, both integers.

    Guarantee: pure epsilon = ln(truth / lie) for any two answers; the draw compares integers and is exact.
    Raises: RefusedInput, unless truth >= lie >= 1, or for a value that is no bool.
    """

    name = "coin"
    version = "1"

    def __init__(self, truth: int = 3, lie: int = 1) -> None:
        if not (isinstance(truth, int) and isinstance(lie, int) and truth >= lie >= 1):
            raise RefusedInput(
                f"coin: truth and lie must be integers with truth >= lie >= 1, got {truth!r} and {lie!r}"
            )
        self.truth, self.lie = truth, lie

    def event(self) -> DpEvent:
        return pure_event(self.guarantee.epsilon)

    @property
    def guarantee(self) -> Guarantee:
        # Two steps up: `log` is good to less than one unit in the last place, and an epsilon is rounded up.
        exact = math.log(self.truth / self.lie)
        epsilon = math.nextafter(math.nextafter(exact, math.inf), math.inf) if self.truth > self.lie else 0.0
        return Guarantee(Kind.PURE, epsilon, unit=Unit.RECORD, neighbouring=Neighbouring.LOCAL, proof=PROOF)

    def sample(self, value: bool) -> bool:
        honest = secrets.randbelow(self.truth + self.lie) < self.truth
        return self._checked(value) == honest

    def distribution(self, value: bool) -> Mapping[Hashable, float]:
        total = self.truth + self.lie
        return {self._checked(value): self.truth / total, not value: self.lie / total}

    def parameters(self) -> Mapping[str, Any]:
        return {"truth": self.truth, "lie": self.lie}

    def _checked(self, value: bool) -> bool:
        if not isinstance(value, bool):
            raise RefusedInput(
                f"coin: a value must be True or False, got {type(value).__name__}; ask a yes-no question"
            )
        return value

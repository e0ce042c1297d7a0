"""Two-sided geometric noise on an integer count, also called the discrete Laplace mechanism."""

from __future__ import annotations

import math
import secrets
from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from privkt.contracts.mechanism import Mechanism
from privkt.privacy import Guarantee, Kind, Neighbouring, RefusedInput, Unit, pure_event
from privkt_mechanisms import exact

if TYPE_CHECKING:
    from dp_accounting import DpEvent


class Geometric(Mechanism[int, int]):
    """Adds an integer with probability proportional to exp(-epsilon |x| / sensitivity).

    `sensitivity` is the largest change of the count between neighbours under `neighbouring`; `lower` and `upper` clamp
    what comes out, which is post-processing and costs nothing.
    Guarantee: pure epsilon for any two counts at most `sensitivity` apart (docs/proofs/geometric.md); exact, no floats.
    Raises: RefusedInput, for a sensitivity below 1, bounds in the wrong order, or a value that is no integer.
    References: Ghosh, Roughgarden, Sundararajan 2009, "Universally utility-maximizing privacy mechanisms"; Canonne,
        Kamath, Steinke 2020, Algorithm 2.
    """

    name = "geometric"
    version = "1"

    def __init__(
        self,
        epsilon: Fraction | float | str,
        sensitivity: int = 1,
        *,
        lower: int | None = None,
        upper: int | None = None,
        unit: Unit | str = Unit.RECORD,
        neighbouring: Neighbouring | str = Neighbouring.ZERO_OUT,
        below: exact.Below = secrets.randbelow,
    ) -> None:
        self.epsilon = exact.epsilon_of(self.name, epsilon)
        if not _is_integer(sensitivity) or sensitivity < 1:
            raise RefusedInput(
                f"{self.name}: sensitivity must be an integer >= 1, got {sensitivity!r}; "
                "count how far one unit can move the count"
            )
        for bound, value in (("lower", lower), ("upper", upper)):
            if value is not None and not _is_integer(value):
                raise RefusedInput(f"{self.name}: {bound} must be an integer, got {value!r}; leave it out for no bound")
        if lower is not None and upper is not None and lower >= upper:
            raise RefusedInput(f"{self.name}: lower must be below upper, got {lower} and {upper}; swap them")
        self.sensitivity, self.lower, self.upper = sensitivity, lower, upper
        self.rate = self.epsilon / sensitivity
        self._guarantee = Guarantee(
            Kind.PURE,
            exact.rounded_up(self.epsilon),
            unit=unit,  # type: ignore[arg-type]
            neighbouring=neighbouring,  # type: ignore[arg-type]
            proof="docs/proofs/geometric.md",
        )
        self._below = below

    def event(self) -> DpEvent:
        return pure_event(exact.rounded_up(self.epsilon))

    @property
    def guarantee(self) -> Guarantee:
        return self._guarantee

    def sample(self, value: int) -> int:
        return self._clamped(self._count(value) + exact.discrete_laplace(self.rate, self._below))

    def distribution(self, value: int) -> Mapping[Hashable, float] | None:
        """Every output's probability if both bounds are set, else None: the integers are many."""
        value = self._count(value)
        if self.lower is None or self.upper is None:
            return None
        inner: dict[Hashable, float] = {y: self.probability(value, y) for y in range(self.lower + 1, self.upper)}
        return {
            self.lower: self._at_most(self.lower - value),
            **inner,
            self.upper: self._at_most(value - self.upper),  # the noise is symmetric
        }

    def probability(self, value: int, output: int) -> float:
        """The chance of exactly this output before clamping."""
        rate = float(self.rate)
        return math.tanh(rate / 2) * math.exp(-rate * abs(output - value))

    def why_not_neighbours(self, one: int, other: int) -> str | None:
        apart = abs(self._count(one) - self._count(other))
        if apart <= self.sensitivity:
            return None
        return f"they are {apart} apart, and sensitivity is {self.sensitivity}"

    def parameters(self) -> Mapping[str, Any]:
        return {
            "epsilon": exact.shown(self.epsilon),
            "sensitivity": self.sensitivity,
            "lower": self.lower,
            "upper": self.upper,
        }

    def _at_most(self, m: int) -> float:
        rate = float(self.rate)
        if m < 0:
            return math.exp(rate * m) / (1 + math.exp(-rate))
        return 1 - math.exp(-rate * (m + 1)) / (1 + math.exp(-rate))

    def _clamped(self, noisy: int) -> int:
        noisy = noisy if self.lower is None else max(self.lower, noisy)
        return noisy if self.upper is None else min(self.upper, noisy)

    def _count(self, value: int) -> int:
        if not _is_integer(value):
            raise RefusedInput(
                f"{self.name}: a value must be an integer, got {type(value).__name__}; count, do not measure"
            )
        return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

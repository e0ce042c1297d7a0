"""What several charges cost together, by a filter that is fixed when the ledger is made.

`basic` adds planned epsilons and deltas (valid for adaptively chosen runs: Rogers, Roth, Ullman and Vadhan 2016; a
single run that uses the whole cap is never refused by a looser bound). `zcdp` adds rho (Whitehouse et al. 2023), `rdp`
adds the Renyi divergence at one order (Feldman and Zrnic 2021); both state an epsilon at 99 % of the cap's delta, the
last hundredth being kept for the samplers' slack. PLD and f-DP are no valid filters and are not offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from privkt.privacy import accounting
from privkt.privacy.errors import RefusedInput
from privkt.privacy.guarantee import Neighbouring

FILTERS = ("basic", "zcdp", "rdp")
_SLACK_SHARE = 0.01


@dataclass(frozen=True)
class Cost:
    """What one charge adds to a filter; infinite for kind none."""

    epsilon: float
    delta: float
    divergence: float = 0.0
    slack_delta: float = 0.0

    @property
    def infinite(self) -> bool:
        """Whether nothing is protected any more."""
        return math.isinf(self.epsilon)


def _exact(value: float) -> Fraction:
    """The decimal number that a person wrote, so that ten times 0.1 is 1."""
    return Fraction(repr(float(value)))


def _up(value: Fraction) -> float:
    near = float(value)
    return near if _exact(near) >= value else math.nextafter(near, math.inf)


def add_up(values: Iterable[float]) -> float:
    """The sum of decimal numbers, rounded up to a float."""
    return _up(sum(map(_exact, values), Fraction(0)))


def left_of(cap: float, spent: float) -> float:
    """What remains of `cap`, rounded down, never below zero."""
    rest = _exact(cap) - _exact(spent)
    near = max(0.0, float(rest))
    return near if _exact(near) <= max(rest, Fraction(0)) else math.nextafter(near, 0.0)


@dataclass(frozen=True)
class Filter:
    """A rule of composition with its cap.

    Edge cases: `order` is for `rdp` alone; a cap with delta = 0 suits `basic` and pure guarantees only.
    """

    name: str
    cap_epsilon: float
    cap_delta: float
    neighbouring: Neighbouring
    order: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FILTERS:
            raise RefusedInput(
                f"ledger filter: must be one of {', '.join(FILTERS)}, got {self.name!r}; basic suits most"
            )
        if not (math.isfinite(self.cap_epsilon) and self.cap_epsilon > 0):
            raise RefusedInput(
                f"ledger cap: epsilon must be finite and > 0, got {self.cap_epsilon}; name the most to spend"
            )
        if not (0 <= self.cap_delta < 1 and (self.name == "basic" or self.cap_delta > 0)):
            raise RefusedInput(
                f"ledger cap: delta must lie in [0, 1), above 0 for filter {self.name}, got {self.cap_delta}; "
                "name the most to spend"
            )
        if self.name == "rdp" and self.order is None:
            # The order at which a Gaussian that uses the whole cap is converted best.
            best = 1 + 2 * math.log(1 / self.cap_delta) / self.cap_epsilon
            object.__setattr__(self, "order", float(max(2, round(best))))

    def divergence(self, event: accounting.DpEvent) -> float:
        """What `event` adds in the filter's own currency: rho, the divergence at the order, or nothing for `basic`."""
        if self.name == "zcdp":
            return accounting.zcdp_rho(event, self.neighbouring)
        if self.name == "rdp" and self.order is not None:
            return accounting.rdp(event, self.order, self.neighbouring)
        return 0.0

    def total(self, costs: Iterable[Cost]) -> tuple[float, float]:
        """Epsilon and delta of everything, infinite spends left aside; infinity if the slack outgrew its share."""
        finite = [cost for cost in costs if not cost.infinite]
        if self.name == "basic":
            return add_up(cost.epsilon for cost in finite), add_up(cost.delta for cost in finite)
        if not finite:
            return 0.0, 0.0
        if math.fsum(cost.slack_delta for cost in finite) > _SLACK_SHARE * self.cap_delta:
            return math.inf, self.cap_delta
        delta = (1 - _SLACK_SHARE) * self.cap_delta
        divergence = math.fsum(cost.divergence for cost in finite) * (1 + 1e-12)
        orders = (self.order,) if self.order is not None else None
        return accounting.divergence_to_epsilon(divergence, delta, orders), self.cap_delta

    def holds(self, total: tuple[float, float]) -> bool:
        """Whether a total stays within the cap."""
        return total[0] <= self.cap_epsilon and total[1] <= self.cap_delta

"""What one draw of a token costs, two ways that are never mixed, and what a document of many draws costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from privkt.privacy import accounting
from privkt.privacy.errors import InvalidGuarantee
from privkt.privacy.guarantee import Guarantee, Kind, Neighbouring, Unit

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_UP = 1 + 2.0**-48  # a handful of rounded operations; a stated bound must not fall below the true one
_WORTH_A_DELTA = 0.99  # of the pure epsilon


@dataclass(frozen=True)
class Certificate:
    """What one draw of a mechanism over a public vocabulary promises between any two inputs.

    `epsilon_range`: 2 ln(w_max / w_min) from the weights alone, true for any input whatever; infinite where a weight
    may be 0. `epsilon_exact`: the largest log ratio of the law really sampled, over all inputs of a static table, where
    it was enumerated. `bounded_range`: the law is weight over sum of weights, each weight in one public interval, so
    that the bounded-range bound holds for `epsilon_range`. `rho_exact`: an enumerated zCDP bound of the same table.
    Units: nats; all numbers are rounded up.
    Guarantee: a bound of `epsilon_range` is never computed from `epsilon_exact`, nor the other way round.
    Raises: InvalidGuarantee, for numbers below 0 or not numbers.
    References: Durfee and Rogers 2019 (bounded range); Dong, Durfee, Rogers 2020; Bun and Steinke 2016.
    """

    epsilon_range: float
    epsilon_exact: float | None = None
    bounded_range: bool = False
    rho_exact: float | None = None

    def __post_init__(self) -> None:
        for name in ("epsilon_range", "epsilon_exact", "rho_exact"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InvalidGuarantee(f"Certificate: {name} must be >= 0, got {value!r}; correct the mechanism")

    @property
    def epsilon(self) -> float:
        """The smaller of the two; infinite where nothing is certified."""
        return min(self.epsilon_range, math.inf if self.epsilon_exact is None else self.epsilon_exact)

    @property
    def rho(self) -> float:
        """A zCDP bound of one draw: the least of those that hold.

        epsilon_range^2 / 8 for bounded range; epsilon tanh(epsilon / 2) for any pure epsilon. epsilon_exact^2 / 8 is
        not a bound.
        """
        found = [math.inf]
        if self.bounded_range:
            found.append(self.epsilon_range**2 / 8 * _UP)
        if math.isfinite(self.epsilon):
            found.append(self.epsilon * math.tanh(self.epsilon / 2) * _UP)
        if self.rho_exact is not None:
            found.append(self.rho_exact)
        return min(found)


@dataclass(frozen=True)
class DocumentCost:
    """What a whole document costs: its guarantee, and the event for the ledger."""

    guarantee: Guarantee
    event: DpEvent


def document_cost(
    certificates: Sequence[Certificate] | Certificate,
    positions: int,
    *,
    delta: float = 0.0,
    unit: Unit = Unit.RECORD,
    conditional_on: tuple[str, ...] = (),
    proof: str = "",
) -> DocumentCost:
    """`positions` independent draws, one a token: the public length that every document is cut or padded to.

    `certificates`: one for all positions, or one for each, fixed before the text is seen.
    Guarantee: between any two documents (relation local): the sum of epsilons; with a delta the least of that sum, the
        optimal composition of the epsilons and what the sum of rhos costs; the pure one unless 1 % is saved.
    Edge cases: a position without a finite epsilon makes the whole kind none.
    Raises: InvalidGuarantee, where certificates and positions do not fit together.
    """
    each = [certificates] * positions if isinstance(certificates, Certificate) else list(certificates)
    if positions < 1 or len(each) != positions:
        raise InvalidGuarantee(
            f"document_cost: there must be one certificate a position and at least one position, got {len(each)} for "
            f"{positions}; give one for all, or one for each"
        )
    about: dict[str, Any] = {"unit": unit, "neighbouring": Neighbouring.LOCAL, "conditional_on": conditional_on}
    whole = _summed_up([c.epsilon for c in each])
    if not math.isfinite(whole):
        reason = "a token's law has no finite epsilon"
        return DocumentCost(Guarantee.none(reason, unit=unit, neighbouring=Neighbouring.LOCAL), accounting.none_event())
    about["proof"] = proof
    event = accounting.compose([accounting.pure_event(c.epsilon) for c in each])
    found = [DocumentCost(Guarantee(Kind.PURE, whole, **about), event)]
    if delta > 0:
        cost = accounting.epsilon(event, delta, Neighbouring.LOCAL)
        found.append(DocumentCost(Guarantee(Kind.APPROXIMATE, cost, delta, **about), event))
        rho = _summed_up([c.rho for c in each])
        event = accounting.zcdp_event(rho)
        cost = accounting.epsilon(event, delta, Neighbouring.LOCAL)
        found.append(DocumentCost(Guarantee(Kind.ZCDP, cost, delta, rho=rho, **about), event))
    best = min(found, key=lambda cost: cost.guarantee.epsilon)
    # A delta is spent where it saves something to speak of: it adds up in the ledger too.
    return best if best.guarantee.epsilon < _WORTH_A_DELTA * whole else found[0]


def _summed_up(values: Sequence[float]) -> float:
    """The smallest float that is not below the sum."""
    if not all(map(math.isfinite, values)):
        return math.inf
    exact = sum(map(Fraction, values))
    near = float(exact)
    return near if near >= exact else math.nextafter(near, math.inf)

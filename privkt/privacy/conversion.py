"""From a smaller unit to a larger one: token, document, record, user. Never downwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from privkt.privacy import accounting
from privkt.privacy.errors import RefusedInput
from privkt.privacy.events import leaves, pure_epsilon_of
from privkt.privacy.guarantee import Guarantee, Kind, Unit

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_SIZES = list(Unit)


def to_larger_unit(event: DpEvent, guarantee: Guarantee, unit: Unit, at_most: int) -> tuple[DpEvent, Guarantee]:
    """The same release stated for `unit`, of which each holds at most `at_most` of the smaller units, publicly capped.

    Guarantee: group privacy: pure epsilons and Gaussian sensitivities grow `at_most` times, rho its square times
        (Dwork and Roth 2014, Theorem 2.2; Bun and Steinke 2016, Proposition 1.9); epsilon is then accounted anew at
        the same delta.
    Raises: RefusedInput, for a unit that is not larger, and for sampled events, whose groups share their draws: sample
        the larger unit instead.
    """
    import dp_accounting as dpa

    unit = Unit(unit)
    if _SIZES.index(unit) <= _SIZES.index(guarantee.unit) or at_most < 1:
        raise RefusedInput(
            f"unit conversion: only from a smaller to a larger unit of at least 1 each, got {guarantee.unit} to {unit} "
            f"with {at_most}; state the larger unit and a public cap"
        )
    if guarantee.kind in (Kind.METRIC, Kind.NONE):
        raise RefusedInput(
            f"unit conversion: kind {guarantee.kind} says nothing about groups; state a pure or approximate guarantee"
        )
    grown = []
    for leaf, times in leaves(event).items():
        one: Any
        if isinstance(leaf, dpa.RandomizedResponseDpEvent):
            one = accounting.pure_event(at_most * pure_epsilon_of(leaf.noise_parameter), times)
        elif isinstance(leaf, dpa.ZCDpEvent):
            one = accounting.compose([accounting.zcdp_event(at_most**2 * leaf.rho)] * times)
        elif isinstance(leaf, dpa.GaussianDpEvent):
            one = accounting.gaussian_event(leaf.noise_multiplier / at_most, times)
        else:
            raise RefusedInput(
                f"unit conversion: {type(leaf).__name__} samples the smaller unit, and a group shares no draw; "
                f"sample by {unit}"
            )
        grown.append(one)
    whole = accounting.compose(grown)
    return whole, Guarantee(
        guarantee.kind,
        accounting.epsilon(whole, guarantee.delta, guarantee.neighbouring),
        guarantee.delta,
        rho=None if guarantee.rho is None else guarantee.rho * at_most**2,
        unit=unit,
        neighbouring=guarantee.neighbouring,
        conditional_on=(*guarantee.conditional_on, f"at most {at_most} {guarantee.unit}s a {unit}"),
        proof=guarantee.proof,
    )

"""Privacy loss distributions of elementary events, composed; every rounding is pessimistic."""

from __future__ import annotations

import math
from typing import Any

from privkt.privacy._renyi import curve
from privkt.privacy.events import OVERFLOW_ERROR, Leaves, overflow, pure_epsilon_of

_INTERVAL = 1e-4  # narrowest privacy-loss cell, dp-accounting's default; pessimistic whatever the width
_MOST_CELLS = 2**21
_FEW_ORDERS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
_LOW_ORDERS = (1.05, 1.1, 1.25, 1.5)  # where noise is so small that order 2 says nothing
_WIDEST = 4000.0


def interval_for(parts: Leaves, doubled: bool, widening: int = 1) -> float | None:
    """The cell width; None where no distribution is known (zCDP) or useful.

    Discretisation costs about steps * width^2, so few steps bear wide cells, unless each loses little. A pure epsilon
    is made a whole number of cells, where it costs nothing.
    """
    import dp_accounting as dpa

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    if any(isinstance(leaf, dpa.ZCDpEvent) for leaf, _ in parts):
        return None
    # Only a size: how far losses reach, four times further for a doubled sensitivity.
    sides = 8 if doubled else 2
    span = sides * dpa.rdp.compute_epsilon(_FEW_ORDERS, curve(parts, False, _FEW_ORDERS), 1e-15)[0]
    if not span < _WIDEST:
        span = sides * dpa.rdp.compute_epsilon(_LOW_ORDERS, curve(parts, False, _LOW_ORDERS), 1e-15)[0]
    if not span < _WIDEST:
        return None
    steps = max(times for _, times in parts)
    width = _INTERVAL * min(10.0, max(1.0, math.sqrt(2000 / steps))) * widening
    for leaf, _ in parts:
        if isinstance(leaf, BallsInBinsGaussianDpEvent):
            spread = math.sqrt(math.expm1(min(100.0, leaf.noise_multiplier**-2)) / leaf.bins)
            width = min(width, widening * max(_INTERVAL / 20, spread / 20))
    width = max(width, span / _MOST_CELLS)
    pure = [(n, leaf.noise_parameter) for leaf, n in parts if isinstance(leaf, dpa.RandomizedResponseDpEvent)]
    if pure:
        most_used = pure_epsilon_of(max(pure)[1])
        width = most_used / math.ceil(most_used / width)
    return width


def loss_distribution(
    parts: Leaves, doubled: bool, interval: float, coarse: bool = False, negligible: float = 0.0
) -> Any:
    """dp-accounting's distribution of all `parts`, in both directions.

    `negligible` is a delta that nobody minds: capped draws that are full less often than that, in all their steps, are
    given up as infinite losses, which is simpler than what they cost.
    Edge cases: replacing a unit that is in one bin of an epoch is accounted without amplification.
    """
    import dp_accounting as dpa
    from dp_accounting.pld import privacy_loss_distribution as pld

    from privkt.privacy import allocation
    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    relations = dpa.NeighboringRelation

    def gaussian(noise_multiplier: float, rate: float = 1.0, opposite: bool = doubled) -> Any:
        return pld.from_gaussian_mechanism(
            noise_multiplier,
            sampling_prob=rate,
            value_discretization_interval=interval,
            neighboring_relation=relations.REPLACE_ONE if opposite else relations.ADD_OR_REMOVE_ONE,
        )

    whole = pld.identity(value_discretization_interval=interval)
    for leaf, times in parts:
        in_bins = isinstance(leaf, BallsInBinsGaussianDpEvent)
        if isinstance(leaf, dpa.RandomizedResponseDpEvent):
            cells = math.ceil(pure_epsilon_of(leaf.noise_parameter) / interval - 1e-9)
            likely = 1 / (1 + math.exp(-cells * interval))
            part = pld.PrivacyLossDistribution.create_from_rounded_probability(
                {cells: likely, -cells: 1 - likely}, 0.0, interval
            ).self_compose(times)
        elif in_bins and not doubled:
            few = allocation.FEW_CELLS if coarse else allocation.CELLS
            part = allocation.loss_distribution(leaf.noise_multiplier, leaf.bins, interval, few).self_compose(times)
        elif in_bins or isinstance(leaf, dpa.GaussianDpEvent):
            part = gaussian(leaf.noise_multiplier / math.sqrt(times))
        elif isinstance(leaf, dpa.TruncatedSubsampledGaussianDpEvent):
            part = _capped(leaf, gaussian, interval, negligible / times).self_compose(times)
        else:
            part = gaussian(leaf.event.noise_multiplier, leaf.sampling_probability).self_compose(times)
        whole = whole.compose(part)
    return whole


def _capped(leaf: Any, gaussian: Any, interval: float, negligible: float) -> Any:
    """A capped Poisson draw: a unit that enters a full one puts another out, and moves the sum twice as far.

    The chance of a full draw is known up to a relative error; what may be missing is given to the worse pair of all.
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    noise, rate = leaf.noise_multiplier, leaf.sampling_probability
    (full, inside), part = overflow(leaf), gaussian(noise, rate)
    most = full * (1 + 3 * OVERFLOW_ERROR)
    if 0 < most <= negligible:
        lost = pld.PrivacyLossDistribution.create_from_rounded_probability({0: 0.0}, 1.0, interval)
        part = lost.compute_mixture(part, most)
    elif full > 0:
        least = full * (1 - OVERFLOW_ERROR)
        unsure = min(1.0, 3 * OVERFLOW_ERROR * full / (1 - least))
        part = gaussian(noise / 2, rate, opposite=True).compute_mixture(part, unsure)
        inside = min(rate, inside * (1 + 3 * OVERFLOW_ERROR))
        part = gaussian(noise / 2, inside, opposite=True).compute_mixture(part, least)
    return part

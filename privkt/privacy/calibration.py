"""From a budget to a noise multiplier."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scipy import optimize

from privkt.privacy import accounting
from privkt.privacy.errors import InvalidBudget
from privkt.privacy.guarantee import Neighbouring

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_PRECISION = 1e-4  # relative, of the noise multiplier
_LARGEST = 16.0  # log of the largest noise multiplier that is tried, about 9 million


class Design(Protocol):
    """Everything of a training but its noise; hashable, so that asking again costs nothing."""

    def event(self, noise_multiplier: float) -> DpEvent:
        """What the whole training costs with this noise; more noise costs less."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class _Poisson:
    rate: float
    steps: int

    def event(self, noise_multiplier: float) -> DpEvent:
        return accounting.poisson_gaussian_event(noise_multiplier, self.rate, self.steps)


def calibrate_noise(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT,
    *,
    slack_delta: float = 0.0,
) -> float:
    """The smallest noise multiplier, to 1e-4 and rounded up, whose epsilon stays within the budget.

    Guarantee: accounting.epsilon(event of the result, delta - slack_delta) <= epsilon; `slack_delta` is what
        the sampler of the noise itself may cost (its total variation, over all coordinates and steps).
    Raises: InvalidBudget, if no noise is enough or the slack takes the whole delta.
    """
    return calibrate(epsilon, delta, _Poisson(float(sampling_rate), steps), neighbouring, slack_delta=slack_delta)


def calibrate(
    epsilon: float,
    delta: float,
    design: Design,
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT,
    *,
    slack_delta: float = 0.0,
) -> float:
    """`calibrate_noise` for any design, with the event that it names itself."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InvalidBudget(f"calibrate_noise: epsilon must be finite and > 0, got {epsilon}; ask for 1 to 10")
    if not 0 < delta < 1:
        raise InvalidBudget(f"calibrate_noise: delta must lie strictly between 0 and 1, got {delta}; ask for 1e-5")
    if not 0 <= slack_delta < delta:
        raise InvalidBudget(
            f"calibrate_noise: slack_delta must be at least 0 and below delta = {delta:g}, got {slack_delta:g}; "
            "use a finer sampler or a larger delta"
        )
    design.event(1.0)  # refuses impossible rates and steps by name
    return _calibrate(float(epsilon), float(delta - slack_delta), design, Neighbouring(neighbouring))


@functools.lru_cache(maxsize=256)
def _calibrate(target: float, delta: float, design: Design, neighbouring: Neighbouring) -> float:
    def coarse(log_noise: float) -> float:
        return _excess(accounting.coarse_epsilon(design.event(math.exp(log_noise)), delta, neighbouring), target)

    def exact(log_noise: float) -> float:
        return _excess(accounting.epsilon(design.event(math.exp(log_noise)), delta, neighbouring), target)

    low = high = 0.0
    if coarse(0.0) > 0:
        while coarse(high) > 0:
            low, high = high, high + 0.7
            if high > _LARGEST:
                raise InvalidBudget(
                    f"calibrate_noise: epsilon = {target:g} must be reachable with a noise multiplier below "
                    f"{math.exp(_LARGEST):.0e}, and is not; raise epsilon or delta, or plan fewer steps"
                )
    else:
        while coarse(low) <= 0 and low > -_LARGEST:
            low, high = low - 0.35, low
    start = float(optimize.brentq(coarse, low, high, xtol=_PRECISION / 4)) if low < high else low
    slope = (coarse(start + 0.01) - coarse(start - 0.01)) / 0.02
    return _settle(exact, start, min(slope, -0.1))


def _excess(epsilon: float, target: float) -> float:
    """log(epsilon / target), never below -14: where delta alone covers everything, epsilon is 0."""
    return math.log(max(epsilon, 1e-6 * target) / target)


def _settle(excess: Callable[[float], float], start: float, slope: float) -> float:
    """Walk from a coarse root to a noise that the fine accountant confirms and that is within 1e-4 of the smallest.

    Newton steps aim a third of the precision above the root; `slope` is d log(epsilon) / d log(noise), below zero.
    """
    at, found = start, math.inf
    for _ in range(50):
        over = excess(at)
        if over <= 0:
            found = min(found, at)
            if -over <= -slope * _PRECISION * 0.9:
                break
        at += max(-0.5, min(0.5, -over / slope)) + _PRECISION / 3
        if at >= found:
            break
    return math.exp(found)

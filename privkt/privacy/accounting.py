"""What events cost: epsilon and delta by privacy loss distributions, with Renyi divergences beside them.

Relations. Under zero-out a unit becomes empty and N stays public: the two output distributions of a Gaussian
sum with the fixed divisor q*N are those of adding or removing the unit, so the epsilon is the same (Kairouz et
al. 2021, arXiv 2103.00039, Definition 1.1; dp-accounting's REPLACE_SPECIAL). Under replace-one (and local) a
contribution may turn to its opposite: the pair is q N(+1) + (1-q) N(0) against q N(-1) + (1-q) N(0), which
dominates every pair inside the clip ball (docs/proofs/accounting.md), and dp-accounting's REPLACE_ONE
distribution of it is used. Its RDP accountant does NOT double the sensitivity under REPLACE_ONE and is never
asked for that. With balls in bins, replacing is emptying and then filling, or two opposite Gaussians: the smaller
epsilon of the two. Pure and zCDP events hold for the relation their mechanism states.

Every number is an upper bound: discretisation is pessimistic and results are rounded up.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from privkt.privacy._losses import interval_for, loss_distribution
from privkt.privacy._renyi import ALL_ORDERS, curve, orders_for
from privkt.privacy.errors import InvalidEvent
from privkt.privacy.events import (
    Leaves,
    balls_in_bins_event,
    compose,
    event_from_json,
    event_to_json,
    gaussian_event,
    leaves,
    none_event,
    poisson_gaussian_event,
    pure_epsilon_of,
    pure_event,
    sorted_leaves,
    truncated_poisson_gaussian_event,
    zcdp_event,
)
from privkt.privacy.guarantee import Neighbouring

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from privkt.privacy.calibration import Design

__all__ = [
    "balls_in_bins_event",
    "calibrate",
    "calibrate_noise",
    "coarse_epsilon",
    "compose",
    "delta_at",
    "divergence_to_epsilon",
    "epsilon",
    "event_from_json",
    "event_to_json",
    "gaussian_event",
    "noise_per_coordinate",
    "none_event",
    "poisson_gaussian_event",
    "pure_event",
    "rdp",
    "rdp_epsilon",
    "replace_one_epsilon",
    "truncated_poisson_gaussian_event",
    "zcdp_event",
    "zcdp_rho",
]

_SMALLEST_PLD_DELTA = 1e-12  # FFT rounding is about 1e-16; below this RDP alone is trusted
_ROUNDING = 1e-10  # relative; covers floating-point error of a pessimistic distribution
_NEGLIGIBLE_SHARE = 1e-3  # of delta
_SPLITS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def _doubled(neighbouring: Neighbouring) -> bool:
    return Neighbouring(neighbouring) in (Neighbouring.REPLACE_ONE, Neighbouring.LOCAL)


def _need_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise InvalidEvent(f"accounting: delta must lie in [0, 1), got {delta}; a usual one is min(1e-5, 1/(10 N))")


def epsilon(event: DpEvent, delta: float, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """The smallest epsilon we can prove for `event` at `delta`, rounded up.

    Edge cases: delta = 0 gives the plain sum of pure epsilons, infinity if anything else happened; a non-private event
    gives infinity; no event gives 0.
    """
    _need_delta(delta)
    return _epsilon(sorted_leaves(event), float(delta), _doubled(neighbouring))


def coarse_epsilon(event: DpEvent, delta: float, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """`epsilon` with cells five times as wide: still an upper bound, five times as fast, for searches."""
    return _epsilon(sorted_leaves(event), float(delta), _doubled(neighbouring), 5)


@functools.lru_cache(maxsize=512)
def _epsilon(parts: Leaves, delta: float, doubled: bool, widening: int = 1) -> float:
    import dp_accounting as dpa

    if not parts:
        return 0.0
    if any(isinstance(leaf, dpa.NonPrivateDpEvent) for leaf, _ in parts):
        return math.inf
    pure = [(leaf, n) for leaf, n in parts if isinstance(leaf, dpa.RandomizedResponseDpEvent)]
    rest = tuple(part for part in parts if part not in pure)
    pure_sum = math.fsum(n * pure_epsilon_of(leaf.noise_parameter) for leaf, n in pure)
    if not rest and delta == 0:
        return pure_sum
    bounds = [pure_sum] if not rest else []
    if rest and pure:
        bounds.append(pure_sum + _epsilon(rest, delta, doubled))
    if delta > 0:
        interval = interval_for(parts, doubled, widening)
        if interval is None or delta < _SMALLEST_PLD_DELTA:
            bounds.append(_rdp_epsilon(parts, delta, doubled))
        else:
            whole = loss_distribution(
                parts, doubled, interval, coarse=widening > 1, negligible=_NEGLIGIBLE_SHARE * delta
            )
            bounds.append(whole.get_epsilon_for_delta(delta))
            if doubled and not pure and _in_bins(parts):
                bounds.append(_two_way_epsilon(parts, delta, interval, widening))
    best = min(bounds, default=math.inf)
    return best if best == pure_sum else best * (1 + _ROUNDING)


def _in_bins(parts: Leaves) -> bool:
    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    return any(isinstance(leaf, BallsInBinsGaussianDpEvent) for leaf, _ in parts)


def _two_way_epsilon(parts: Leaves, delta: float, interval: float, widening: int) -> float:
    """Epsilon of replacing as emptying first and filling after: the deltas are delta_1 and e^epsilon_1 delta_2."""
    whole = loss_distribution(parts, False, interval, coarse=widening > 1)
    found = math.inf
    for share in _SPLITS:
        empties = whole._pmf_remove.get_epsilon_for_delta(share * delta)
        rest = (1 - share) * delta * math.exp(-min(empties, 700.0))
        if rest >= _SMALLEST_PLD_DELTA:
            found = min(found, empties + whole._pmf_add.get_epsilon_for_delta(rest))
    return found


def delta_at(event: DpEvent, epsilon: float, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """The smallest delta we can prove for `event` at `epsilon`, rounded up; 1 for a non-private event."""
    import dp_accounting as dpa
    from dp_accounting.rdp.rdp_privacy_accountant import compute_delta

    if not epsilon >= 0:
        raise InvalidEvent(f"accounting: epsilon must be >= 0, got {epsilon}; ask for a finite one")
    parts, doubled = sorted_leaves(event), _doubled(neighbouring)
    if any(isinstance(leaf, dpa.NonPrivateDpEvent) for leaf, _ in parts):
        return 1.0
    if _epsilon(parts, 0.0, doubled) <= epsilon:
        return 0.0
    interval = interval_for(parts, doubled)
    if interval is not None:
        found = float(loss_distribution(parts, doubled, interval).get_delta_for_epsilon(epsilon))
        if found >= _SMALLEST_PLD_DELTA:
            return min(1.0, found * (1 + _ROUNDING))
    orders = orders_for(parts)
    return min(1.0, float(compute_delta(orders, curve(parts, doubled, orders), epsilon)[0]))


def replace_one_epsilon(event: DpEvent, delta: float) -> float:
    """The epsilon of the same noise when a unit is replaced by another instead of emptied.

    Guarantee: sound for Gaussian events, however sampled, by docs/proofs/accounting.md.
    Raises: InvalidEvent, for pure and zCDP events, whose mechanism must state its own replace-one epsilon.
    """
    import dp_accounting as dpa

    for leaf in leaves(event):
        if isinstance(leaf, dpa.RandomizedResponseDpEvent | dpa.ZCDpEvent):
            raise InvalidEvent(
                f"replace_one_epsilon: only Gaussian events say what replacing costs, got {type(leaf).__name__}; "
                "let the mechanism state it"
            )
    return epsilon(event, delta, Neighbouring.REPLACE_ONE)


def rdp(event: DpEvent, order: float, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """An upper bound of the Renyi divergence of `event` at one `order` above 1."""
    if not 1 < order < math.inf:
        raise InvalidEvent(f"rdp: order must be finite and above 1, got {order}; 2 to 64 is usual")
    return float(curve(sorted_leaves(event), _doubled(neighbouring), (float(order),))[0])


def rdp_epsilon(event: DpEvent, delta: float, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """Epsilon by Renyi divergences alone: looser than `epsilon`, used to check it."""
    _need_delta(delta)
    return _rdp_epsilon(sorted_leaves(event), float(delta), _doubled(neighbouring))


def zcdp_rho(event: DpEvent, neighbouring: Neighbouring = Neighbouring.ZERO_OUT) -> float:
    """A rho for which `event` is rho-zCDP; infinity for a non-private event.

    Guarantee: Gaussian 1/(2 sigma^2), four times that under replace-one; sampling only lowers a Renyi divergence (joint
        quasi-convexity) and is not credited; pure epsilon gives epsilon*tanh(epsilon/2), exact at order 1
        (docs/proofs/accounting.md).
    References: Bun and Steinke 2016, Propositions 1.6 and 3.3.
    """
    import dp_accounting as dpa

    doubled = _doubled(neighbouring)
    total = []
    for leaf, times in leaves(event).items():
        if isinstance(leaf, dpa.NonPrivateDpEvent):
            return math.inf
        if isinstance(leaf, dpa.ZCDpEvent):
            total.append(times * leaf.rho)
        elif isinstance(leaf, dpa.RandomizedResponseDpEvent):
            pure = pure_epsilon_of(leaf.noise_parameter)
            total.append(times * pure * math.tanh(pure / 2))
        else:
            gaussian = leaf.event if isinstance(leaf, dpa.PoissonSampledDpEvent) else leaf
            total.append(times * (4 if doubled else 1) / (2 * gaussian.noise_multiplier**2))
    return math.fsum(total) * (1 + _ROUNDING)


def divergence_to_epsilon(divergence: float, delta: float, orders: tuple[float, ...] | None = None) -> float:
    """Epsilon at `delta` of a Renyi divergence at one order, or of a rho (divergence = rho * order) at every order."""
    import dp_accounting as dpa

    if not math.isfinite(divergence):
        return math.inf
    if orders is None:
        at_each = [divergence * order for order in ALL_ORDERS]
        return float(dpa.rdp.compute_epsilon(ALL_ORDERS, at_each, delta)[0])
    return float(dpa.rdp.compute_epsilon(orders, [divergence] * len(orders), delta)[0])


def _rdp_epsilon(parts: Leaves, delta: float, doubled: bool) -> float:
    import dp_accounting as dpa

    orders = orders_for(parts)
    return float(dpa.rdp.compute_epsilon(orders, curve(parts, doubled, orders), delta)[0])


def noise_per_coordinate(noise_multiplier: float, sampling_rate: float, n: int, max_grad_norm: float = 1.0) -> float:
    """Standard deviation of the noise on one coordinate of the mean gradient.

    Units: those of `max_grad_norm`; at 1 it is clip units. The divisor is the public q*N, never the drawn batch.
    """
    return noise_multiplier * max_grad_norm / (sampling_rate * n)


def calibrate_noise(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT,
    *,
    slack_delta: float = 0.0,
) -> float:
    """The smallest noise multiplier whose epsilon over `steps` Poisson samples stays within the budget."""
    from privkt.privacy import calibration

    return calibration.calibrate_noise(
        epsilon, delta, sampling_rate, steps, Neighbouring(neighbouring), slack_delta=slack_delta
    )


def calibrate(
    epsilon: float,
    delta: float,
    design: Design,
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT,
    *,
    slack_delta: float = 0.0,
) -> float:
    """`calibrate_noise` for any design: `design.event(noise_multiplier)` names the event of the whole training."""
    from privkt.privacy import calibration

    return calibration.calibrate(epsilon, delta, design, Neighbouring(neighbouring), slack_delta=slack_delta)

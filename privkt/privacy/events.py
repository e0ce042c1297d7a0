"""The one factory of dp-accounting events; every accountant of privkt.privacy takes events from here alone.

dp-accounting has no pure-epsilon event, and its PLD accountant ignores the count of a self-composed randomized
response. A pure epsilon therefore enters as binary randomized response, which every epsilon-DP mechanism is a
post-processing of (Kairouz, Oh, Viswanath 2015, Theorem 3.4), `count` uses become a list and never a count, and
readers of events go through `leaves`, which counts them itself.

dp-accounting is imported inside functions: it takes a second, and listing plugins must not wait for it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from privkt.privacy.errors import InvalidEvent

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_LARGEST_PURE_EPSILON = 500.0
Leaves = tuple[tuple[Any, int], ...]


def _need(holds: bool, subject: str, rule: str, came: object) -> None:
    if not holds:
        raise InvalidEvent(f"{subject}: {rule}, got {came!r}; correct the parameters of the mechanism")


def _finite_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def gaussian_event(noise_multiplier: float, count: int = 1) -> DpEvent:
    """`count` Gaussian mechanisms on the whole data set; noise deviation = `noise_multiplier` * sensitivity."""
    import dp_accounting

    _need(
        _finite_positive(noise_multiplier),
        "gaussian_event",
        "noise_multiplier must be finite and > 0",
        noise_multiplier,
    )
    _need(_whole(count), "gaussian_event", "count must be a whole number >= 1", count)
    event = dp_accounting.GaussianDpEvent(float(noise_multiplier))
    return event if count == 1 else dp_accounting.SelfComposedDpEvent(event, count)


def poisson_gaussian_event(noise_multiplier: float, sampling_rate: float, steps: int) -> DpEvent:
    """`steps` Gaussian mechanisms, each on a fresh Poisson sample: every unit in with probability `sampling_rate`."""
    import dp_accounting

    subject = "poisson_gaussian_event"
    _need(
        _finite_positive(noise_multiplier),
        subject,
        "noise_multiplier must be finite and > 0",
        noise_multiplier,
    )
    _need(0 < sampling_rate <= 1, subject, "sampling_rate must lie in (0, 1]", sampling_rate)
    _need(_whole(steps), subject, "steps must be a whole number >= 1", steps)
    gaussian = dp_accounting.GaussianDpEvent(float(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(float(sampling_rate), gaussian), steps)


def truncated_poisson_gaussian_event(
    noise_multiplier: float, sampling_rate: float, steps: int, *, size: int, cap: int
) -> DpEvent:
    """`poisson_gaussian_event` on `size` units with at most `cap` a draw; which of a larger draw stay is data-free.

    Edge cases: a cap that no draw can exceed is no cap.
    """
    import dp_accounting

    subject = "truncated_poisson_gaussian_event"
    plain = poisson_gaussian_event(noise_multiplier, sampling_rate, steps)
    _need(_whole(size), subject, "size must be a whole number >= 1", size)
    _need(_whole(cap), subject, "cap must be a whole number >= 1", cap)
    if cap >= size:
        return plain
    event = dp_accounting.TruncatedSubsampledGaussianDpEvent(size, float(sampling_rate), cap, float(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(event, steps)


def balls_in_bins_event(noise_multiplier: float, bins: int, epochs: int = 1) -> DpEvent:
    """`epochs` passes of `bins` Gaussian mechanisms; in each pass every unit is in one of them, drawn uniformly."""
    import dp_accounting

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    subject = "balls_in_bins_event"
    _need(_finite_positive(noise_multiplier), subject, "noise_multiplier must be finite and > 0", noise_multiplier)
    _need(_whole(bins), subject, "bins must be a whole number >= 1", bins)
    _need(_whole(epochs), subject, "epochs must be a whole number >= 1", epochs)
    if bins == 1:
        return gaussian_event(noise_multiplier, epochs)
    return dp_accounting.SelfComposedDpEvent(BallsInBinsGaussianDpEvent(float(noise_multiplier), bins), epochs)


def pure_event(epsilon: float, count: int = 1) -> DpEvent:
    """`count` uses of any epsilon-DP mechanism, for the relation that the mechanism states."""
    import dp_accounting

    _need(0 <= epsilon <= _LARGEST_PURE_EPSILON, "pure_event", "epsilon must lie in [0, 500]", epsilon)
    _need(_whole(count), "pure_event", "count must be a whole number >= 1", count)
    if epsilon == 0:
        return dp_accounting.NoOpDpEvent()
    event = dp_accounting.RandomizedResponseDpEvent(_uniform_answers(epsilon), 2)
    return event if count == 1 else dp_accounting.ComposedDpEvent([event] * count)


def _uniform_answers(epsilon: float) -> float:
    noise = 2 / (1 + math.exp(epsilon))
    while math.log(2 - noise) - math.log(noise) < epsilon:  # rounding must not promise less than was asked
        noise = math.nextafter(noise, 0.0)
    return noise


def pure_epsilon_of(noise_parameter: float) -> float:
    """The epsilon of binary randomized response that answers uniformly with probability `noise_parameter`.

    Edge cases: of the epsilons that a `pure_event` of this parameter may have been made from, the shortest decimal.
    """
    found = math.log(2 - noise_parameter) - math.log(noise_parameter)
    for digits in (6, 9, 12):
        short = float(f"{found:.{digits}g}")
        if _uniform_answers(short) == noise_parameter:
            return short
    return found


def zcdp_event(rho: float) -> DpEvent:
    """One use of a rho-zCDP mechanism, for the relation that the mechanism states."""
    import dp_accounting

    _need(math.isfinite(rho) and rho >= 0, "zcdp_event", "rho must be finite and >= 0", rho)
    return dp_accounting.ZCDpEvent(float(rho)) if rho else dp_accounting.NoOpDpEvent()


def none_event() -> DpEvent:
    """A release without protection: an infinite spend."""
    import dp_accounting

    return dp_accounting.NonPrivateDpEvent()


def compose(events: Iterable[DpEvent]) -> DpEvent:
    """All of `events`, which may be chosen one after the other by looking at earlier outputs of the same fixed plan."""
    import dp_accounting

    listed = list(events)
    for event in listed:
        leaves(event)
    if len(listed) == 1:
        return listed[0]
    return dp_accounting.ComposedDpEvent(listed) if listed else dp_accounting.NoOpDpEvent()


def leaves(event: DpEvent) -> Counter[DpEvent]:
    """Every elementary event with how often it happens; sampling at rate 1 is no sampling.

    Raises: InvalidEvent, for any event that the factory above cannot make.
    """
    import dp_accounting as dpa

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    found: Counter[DpEvent] = Counter()
    waiting: list[tuple[DpEvent, int]] = [(event, 1)]
    while waiting:
        current, times = waiting.pop()
        if isinstance(current, dpa.NoOpDpEvent):
            continue
        if isinstance(current, dpa.ComposedDpEvent):
            waiting.extend((part, times) for part in current.events)
        elif isinstance(current, dpa.SelfComposedDpEvent):
            waiting.append((current.event, times * current.count))
        elif isinstance(current, dpa.PoissonSampledDpEvent) and isinstance(current.event, dpa.GaussianDpEvent):
            whole = current.sampling_probability == 1
            found[current.event if whole else current] += times
        elif (
            isinstance(
                current,
                dpa.GaussianDpEvent
                | dpa.NonPrivateDpEvent
                | dpa.TruncatedSubsampledGaussianDpEvent
                | BallsInBinsGaussianDpEvent,
            )
            or (isinstance(current, dpa.ZCDpEvent) and current.xi == 0)
            or (isinstance(current, dpa.RandomizedResponseDpEvent) and current.num_buckets == 2)
        ):
            found[current] += times
        else:
            raise InvalidEvent(
                f"event {type(current).__name__}: only events made by privkt.privacy's factory are accounted for, got "
                "another; make it with gaussian_event, poisson_gaussian_event, truncated_poisson_gaussian_event, "
                "balls_in_bins_event, pure_event, zcdp_event or none_event"
            )
    return found


OVERFLOW_ERROR = 1e-6  # relative; of the binomial tails below, with room for the rounding of the rate


def overflow(leaf: Any) -> tuple[float, float]:
    """(P[the other units alone fill a capped draw], P[a unit is in the draw, given that]), up to OVERFLOW_ERROR.

    The second is P[Binomial(N, q) > cap] cap / N over the first: of a draw that is cut, each unit is as likely to stay.
    """
    from scipy import special

    size, cap, rate = leaf.dataset_size, leaf.truncated_batch_size, leaf.sampling_probability
    full = float(special.bdtrc(cap - 1, size - 1, rate))
    inside = float(special.bdtrc(cap, size, rate)) * cap / size
    return (full, min(rate, inside / full)) if full > 0 else (0.0, rate)


def sorted_leaves(event: DpEvent) -> Leaves:
    """`leaves` in one order, so that equal compositions are one cache entry."""
    return tuple(sorted(leaves(event).items(), key=repr))


_FIELDS = {
    "NoOpDpEvent": (),
    "NonPrivateDpEvent": (),
    "GaussianDpEvent": ("noise_multiplier",),
    "ZCDpEvent": ("rho", "xi"),
    "RandomizedResponseDpEvent": ("noise_parameter", "num_buckets"),
    "TruncatedSubsampledGaussianDpEvent": (
        "dataset_size",
        "sampling_probability",
        "truncated_batch_size",
        "noise_multiplier",
    ),
    "BallsInBinsGaussianDpEvent": ("noise_multiplier", "bins"),
}


def event_to_json(event: DpEvent) -> dict[str, Any]:
    """A mapping of dp-accounting's own class and field names; equal neighbours in a list are counted."""
    import dp_accounting as dpa

    name = type(event).__name__
    if isinstance(event, dpa.ComposedDpEvent):
        runs = [[len(list(group)), event_to_json(part)] for part, group in itertools.groupby(event.events)]
        return {"class": name, "events": runs}
    if isinstance(event, dpa.SelfComposedDpEvent):
        return {"class": name, "count": event.count, "event": event_to_json(event.event)}
    if isinstance(event, dpa.PoissonSampledDpEvent):
        inner = event_to_json(event.event)
        return {"class": name, "sampling_probability": event.sampling_probability, "event": inner}
    leaves(event)
    return {"class": name, **{field: getattr(event, field) for field in _FIELDS[name]}}


def event_from_json(values: Mapping[str, Any]) -> DpEvent:
    """The event that `event_to_json` wrote.

    Raises: InvalidEvent, for a class that the factory cannot make or fields that do not fit.
    """
    import dp_accounting as dpa

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    name = values.get("class")
    rest = {key: value for key, value in values.items() if key != "class"}
    try:
        if name == "ComposedDpEvent":
            parts = [(times, event_from_json(part)) for times, part in rest.pop("events")]
            event: DpEvent = dpa.ComposedDpEvent([part for times, part in parts for _ in range(times)], **rest)
        elif name == "SelfComposedDpEvent":
            event = dpa.SelfComposedDpEvent(event_from_json(rest.pop("event")), **rest)
        elif name == "PoissonSampledDpEvent":
            event = dpa.PoissonSampledDpEvent(event=event_from_json(rest.pop("event")), **rest)
        elif name == "BallsInBinsGaussianDpEvent":
            event = BallsInBinsGaussianDpEvent(**rest)
        elif name in _FIELDS:
            event = getattr(dpa, name)(**rest)
        else:
            raise InvalidEvent(f"event JSON: class must be one the factory makes, got {name!r}; use event_to_json")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidEvent):
            raise
        raise InvalidEvent(
            f"event JSON of class {name!r}: fields must be those of dp-accounting, got {sorted(rest)}"
        ) from None
    leaves(event)
    return event

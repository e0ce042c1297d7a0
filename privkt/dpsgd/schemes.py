"""Schemes of sampling: one object knows how units are drawn and what that costs, so that the two cannot part.

A sampler is made by its scheme alone, and a plan's event is its scheme's: no argument anywhere takes one without the
other. N, the batch and every number here are public.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from privkt.dpsgd.epochs import BallsInBinsSampler, FixedOrderSampler
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.sampling import PoissonSampler, Sampler, TruncatedPoissonSampler
from privkt.privacy import accounting, correlated
from privkt.privacy.events import leaves, overflow

_CAP_SHARE = 5e-4  # of delta: an automatic cap is met less often than that, over a whole training
Coefficients = tuple[float, ...]
INDEPENDENT: Coefficients = (1.0,)


@dataclass(frozen=True)
class Scheme(ABC):
    """How `size` units are drawn, about `batch_size` a step."""

    size: int
    batch_size: int
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.size:
            raise RefusedTraining(
                f"PrivateTraining: the expected batch must lie between 1 and N = {self.size}, got {self.batch_size}; "
                "lower batch_size or use more data"
            )

    @property
    def divisor(self) -> float:
        """The public number that sums are divided by: the expected draw, never the realised one."""
        return float(self.batch_size)

    @property
    def rate(self) -> float:
        """How likely a unit is in a step."""
        return self.batch_size / self.size

    def steps_of(self, epochs: float) -> int:
        """Steps that make up so many passes over the data, rounded up."""
        return math.ceil(epochs * self.size / self.batch_size - 1e-9)

    @abstractmethod
    def event(self, noise_multiplier: float, steps: int, coefficients: Coefficients = INDEPENDENT) -> Any:
        """What `steps` steps cost; `coefficients` other than (1,) are those of correlated noise."""

    @abstractmethod
    def sampler(self, key: bytes, *, start: int = 0, state: bytes = b"") -> Sampler:
        """The draws under `key`; `start` and `state` are those of a checkpoint that is resumed."""


@dataclass(frozen=True)
class Poisson(Scheme):
    """Every unit is in a step by its own coin."""

    kind: ClassVar[str] = "poisson"

    def event(self, noise_multiplier: float, steps: int, coefficients: Coefficients = INDEPENDENT) -> Any:
        _need_independent(self.kind, coefficients)
        return accounting.poisson_gaussian_event(noise_multiplier, self.rate, steps)

    def sampler(self, key: bytes, *, start: int = 0, state: bytes = b"") -> Sampler:
        return PoissonSampler(self.size, self.batch_size, key)


@dataclass(frozen=True)
class TruncatedPoisson(Scheme):
    """Poisson, but never more than `cap` units a step; the surplus is dropped at random and the cost counts it."""

    cap: int
    kind: ClassVar[str] = "truncated-poisson"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cap < self.batch_size:
            raise RefusedTraining(
                f"PrivateTraining: the cap of a draw must be at least the expected batch of {self.batch_size}, got "
                f"{self.cap}; raise it, or leave it out for one that is hardly ever met"
            )

    def event(self, noise_multiplier: float, steps: int, coefficients: Coefficients = INDEPENDENT) -> Any:
        _need_independent(self.kind, coefficients)
        return accounting.truncated_poisson_gaussian_event(
            noise_multiplier, self.rate, steps, size=self.size, cap=self.cap
        )

    def sampler(self, key: bytes, *, start: int = 0, state: bytes = b"") -> Sampler:
        return TruncatedPoissonSampler(self.size, self.batch_size, self.cap, key)


@dataclass(frozen=True)
class _Epochs(Scheme):
    """Every unit is in one step of an epoch; an epoch that is not finished is charged whole."""

    @property
    def bins(self) -> int:
        """Steps of an epoch, as few as give about `batch_size` units each."""
        return math.ceil(self.size / self.batch_size)

    @property
    def divisor(self) -> float:
        return self.size / self.bins

    @property
    def rate(self) -> float:
        return 1 / self.bins

    def steps_of(self, epochs: float) -> int:
        return math.ceil(epochs * self.bins - 1e-9)

    def epochs_of(self, steps: int) -> int:
        """Epochs begun by so many steps."""
        return -(-steps // self.bins)


@dataclass(frozen=True)
class BallsInBins(_Epochs):
    """Every unit is in one step of each epoch, drawn uniformly and kept secret (Chua et al. 2025)."""

    kind: ClassVar[str] = "balls-in-bins"

    def event(self, noise_multiplier: float, steps: int, coefficients: Coefficients = INDEPENDENT) -> Any:
        _need_independent(self.kind, coefficients)
        return accounting.balls_in_bins_event(noise_multiplier, self.bins, self.epochs_of(steps))

    def sampler(self, key: bytes, *, start: int = 0, state: bytes = b"") -> Sampler:
        return BallsInBinsSampler(self.size, self.bins, key, start=start, state=state)


@dataclass(frozen=True)
class FixedOrder(_Epochs):
    """Every unit is in the same step of each epoch, by a public order made from `seed`: nothing is amplified."""

    seed: int = 0
    kind: ClassVar[str] = "fixed-order"

    def event(self, noise_multiplier: float, steps: int, coefficients: Coefficients = INDEPENDENT) -> Any:
        if coefficients == INDEPENDENT:
            return accounting.gaussian_event(noise_multiplier, self.epochs_of(steps))
        moved = correlated.sensitivity(coefficients, steps, self.bins, self.epochs_of(steps))
        return accounting.gaussian_event(noise_multiplier / moved)

    def sampler(self, key: bytes, *, start: int = 0, state: bytes = b"") -> Sampler:
        return FixedOrderSampler(self.size, self.bins, self.seed, key)


KINDS: dict[str, type[Scheme]] = {kind.kind: kind for kind in (Poisson, TruncatedPoisson, BallsInBins, FixedOrder)}


def scheme_of(kind: str, size: int, batch_size: int, *, cap: int | None = None, seed: int | None = None) -> Scheme:
    """The scheme of this kind.

    Raises: RefusedTraining, for an unknown kind, and for a cap or seed that it has no use for.
    """
    if kind not in KINDS:
        raise RefusedTraining(f"PrivateTraining: sampler must be one of {', '.join(KINDS)}, got {kind!r}")
    settings = {name: value for name, value in (("cap", cap), ("seed", seed)) if value is not None}
    known = {field.name for field in dataclasses.fields(KINDS[kind])}
    if unknown := sorted(settings.keys() - known):
        raise RefusedTraining(f"PrivateTraining: sampler {kind} has no {unknown[0]}, got {settings}; leave it out")
    if kind == TruncatedPoisson.kind and cap is None:
        raise RefusedTraining("PrivateTraining: sampler truncated-poisson needs a cap, got none; see rarely_met_cap")
    return KINDS[kind](size, batch_size, **settings)


def rarely_met_cap(size: int, batch_size: int, steps: int, delta: float, multiple_of: int = 1) -> int:
    """The smallest cap that draws reach with a probability below delta / 2000 in all, as whole microbatches."""
    low, high = max(1, batch_size), size
    while low < high:
        middle = (low + high) // 2
        (leaf,) = leaves(accounting.truncated_poisson_gaussian_event(1.0, batch_size / size, 1, size=size, cap=middle))
        if steps * overflow(leaf)[0] <= _CAP_SHARE * delta:
            high = middle
        else:
            low = middle + 1
    return -(-low // multiple_of) * multiple_of


def _need_independent(kind: str, coefficients: Coefficients) -> None:
    if coefficients != INDEPENDENT:
        raise RefusedTraining(
            f"PrivateTraining: correlated noise needs steps that are known beforehand, got sampler {kind}; use "
            "sampler fixed-order (no sampling amplifies correlated noise here)"
        )

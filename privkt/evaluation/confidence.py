"""Shares that were counted, with the interval that the true probability lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from privkt.privacy import RefusedInput

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@overload
def least_share(successes: int, trials: int, risk: float) -> float: ...
@overload
def least_share(successes: Counts, trials: int, risk: float) -> Floats: ...
def least_share(successes: Any, trials: int, risk: float) -> Any:
    """The one-sided lower bound of a probability: above it with probability `risk` at most, whatever the truth.

    Shapes: `successes` one number, or an array of them for the same number of independent trials.
    Edge cases: no success gives 0.
    References: Clopper, Pearson 1934.
    """
    from scipy.special import betaincinv

    seen = np.asarray(successes, dtype=np.float64)
    found = np.where(seen > 0, betaincinv(np.maximum(seen, 1), trials - seen + 1, risk), 0.0)
    return found if found.ndim else float(found)


@overload
def most_share(successes: int, trials: int, risk: float) -> float: ...
@overload
def most_share(successes: Counts, trials: int, risk: float) -> Floats: ...
def most_share(successes: Any, trials: int, risk: float) -> Any:
    """The one-sided upper bound: `least_share` of the failures, from above. Never 0; all successes give 1."""
    return 1 - least_share(trials - np.asarray(successes), trials, risk)


@dataclass(frozen=True)
class Share:
    """`successes` of `trials`, and the interval [low, high] that holds the truth with probability `confidence`."""

    successes: int
    trials: int
    low: float
    high: float
    confidence: float

    @classmethod
    def counted(cls, successes: int, trials: int, confidence: float = 0.95) -> Share:
        """From independent trials. Raises: RefusedInput, for a confidence outside (0, 1) or counts that are none."""
        need_confidence(confidence)
        if not 0 <= successes <= trials or trials < 1:
            raise RefusedInput(f"share: there must be 0 to n successes of n >= 1 trials, got {successes} of {trials}")
        risk = (1 - confidence) / 2
        low, high = least_share(successes, trials, risk), most_share(successes, trials, risk)
        return cls(int(successes), int(trials), low, high, confidence)

    @property
    def value(self) -> float:
        """The share that was seen."""
        return self.successes / self.trials

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def need_confidence(confidence: float) -> None:
    """Raises: RefusedInput, outside (0, 1)."""
    if not 0 < confidence < 1:
        raise RefusedInput(f"confidence must lie in (0, 1), got {confidence!r}; 0.99 is usual")

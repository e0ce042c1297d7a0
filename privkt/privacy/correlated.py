"""Correlated noise over the steps of a training: how far one unit moves the sums, in units of the noise behind them.

Step t adds a_0 z_t + a_1 z_(t-1) + ... with independent Gaussian z_t. Written with lower-triangular Toeplitz matrices
that is C^-1 z, so all steps together are C^-1 (C G + z): a post-processing of one Gaussian mechanism whose sensitivity
is the most that one unit moves C G. It depends on the steps that a unit takes part in, which must therefore be public:
no sampling amplifies it here, and a Poisson epsilon for such noise is refused (docs/proofs/accounting.md,
"Correlated noise").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from privkt.privacy.errors import InvalidEvent

_UP = 1 + 1e-9  # float64 sums of at most 10^6 terms
_MOST_STEPS = 2**20


def cgd_coefficients(factor: float) -> tuple[float, ...]:
    """z_t - factor z_(t-1): part of the last step's noise is taken back (DP-lambda-CGD)."""
    if not 0 <= factor < 1:
        raise InvalidEvent(f"correlated noise: the factor must lie in [0, 1), got {factor}; 0.9 is usual")
    return (1.0, -float(factor)) if factor else (1.0,)


def banded_square_root_coefficients(bands: int) -> tuple[float, ...]:
    """The first `bands` coefficients of (1 - x)^(1/2): 1, -1/2, -1/8, -1/16, ...

    References: Kalinin et al. 2025, "Back to square roots: an optimal bound on the matrix factorization error for
        multi-epoch differentially private SGD" (banded inverse square root).
    """
    if bands < 1:
        raise InvalidEvent(f"correlated noise: there must be at least one band, got {bands}; 1 is independent noise")
    found = [1.0]
    for k in range(1, bands):
        found.append(found[-1] * (2 * k - 3) / (2 * k))
    return tuple(found)


def strategy(coefficients: Sequence[float], steps: int) -> np.ndarray:
    """The first column of C, the inverse of the Toeplitz matrix of `coefficients`: `steps` values, the first is 1.

    Raises: InvalidEvent, for coefficients that do not begin with 1 or whose inverse grows beyond any use.
    """
    if not 1 <= steps <= _MOST_STEPS:
        raise InvalidEvent(f"correlated noise: steps must lie between 1 and {_MOST_STEPS}, got {steps}")
    a = np.asarray(coefficients, dtype=np.float64)
    if a.ndim != 1 or not len(a) or a[0] != 1 or not np.isfinite(a).all():
        raise InvalidEvent(
            f"correlated noise: coefficients must be finite and begin with 1, the weight of a step's own noise, got "
            f"{tuple(coefficients)}; divide them by the first"
        )
    c = np.zeros(steps)
    c[0] = 1.0
    for t in range(1, steps):
        reach = min(t, len(a) - 1)
        c[t] = -float(a[1 : reach + 1] @ c[t - reach : t][::-1]) if reach else 0.0
        if not abs(c[t]) < 1e100:
            raise InvalidEvent(
                "correlated noise: the noise of old steps must die out or stay, got coefficients whose inverse grows "
                "without end; choose coefficients that add up to at least 0"
            )
    return c


def survives_a_restart(coefficients: Sequence[float]) -> bool:
    """Whether forgetting all old noise at some steps never raises the sensitivity: C >= 0, as a_i <= 0 implies."""
    return all(a <= 0 for a in coefficients[1:])


def sensitivity(coefficients: Sequence[float], steps: int, separation: int, participations: int | None = None) -> float:
    """How far a unit moves C G, if it takes part at most `participations` times, `separation` steps or more apart.

    Units: those of the clip norm: each participation moves a step's sum by at most 1.
    Guarantee: an upper bound for all such schedules. It is reached for columns of C that are non-negative and do not
        grow (every `cgd_coefficients` and `banded_square_root_coefficients`).
    Edge cases: independent noise gives the square root of the participations.
    References: Denisov et al. 2022, Theorem 2.1 (adaptive steps); Choquette-Choo et al. 2023, Theorem 2 (several
        participations); Kalinin and Lampert 2024, Theorem 2 (where the largest is).
    """
    most = -(-steps // separation) if separation >= 1 else 0
    count = most if participations is None else min(participations, most)
    if count < 1:
        raise InvalidEvent(
            f"correlated noise: a unit must take part at least once, some steps apart, got {participations} "
            f"participations, {separation} steps apart; name the bins of an epoch and the epochs"
        )
    c = strategy(coefficients, steps)
    if c.min() >= 0 and np.all(np.diff(c) <= 0):
        moved = np.zeros(steps)
        for first in range(0, count * separation, separation):
            moved[first:] += c[: steps - first]
        return math.sqrt(float(moved @ moved)) * _UP
    return math.sqrt(_products_bound(c, separation, count)) * _UP


def _products_bound(c: np.ndarray, separation: int, count: int) -> float:
    """sum over pairs of participations of the largest |<column, column>| at their lag or a longer one."""
    steps = len(c)
    at_lag = np.array([np.abs(np.cumsum(c[: steps - lag] * c[lag:])).max() for lag in range(steps)])
    longer = np.maximum.accumulate(at_lag[::-1])[::-1]
    lags = np.arange(1, count) * separation
    return float(count * at_lag[0] + 2 * ((count - np.arange(1, count)) @ longer[lags]))

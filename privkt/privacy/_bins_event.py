"""The one event that dp-accounting has no class for; imported late, as dp-accounting itself is."""

from __future__ import annotations

from dataclasses import dataclass

from dp_accounting import DpEvent


@dataclass(frozen=True)
class BallsInBinsGaussianDpEvent(DpEvent):
    """One pass of `bins` Gaussian mechanisms of sensitivity 1; every unit is in one, drawn uniformly and unseen.

    References: Chua et al. 2025, "Balls-and-bins sampling for DP-SGD".
    """

    noise_multiplier: float
    bins: int

"""Renyi divergences of elementary events, at every order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from privkt.privacy.events import OVERFLOW_ERROR, Leaves, overflow

_WHOLE_ORDERS = tuple(float(x) for x in [*range(2, 64), *range(64, 256, 8), 256, 512, 1024])
ALL_ORDERS = tuple(sorted({*(1 + x / 20 for x in range(1, 200)), *_WHOLE_ORDERS}))


def orders_for(parts: Leaves) -> tuple[float, ...]:
    """Fractional orders of a sampled Gaussian are a series that may not converge; whole ones are a finite sum."""
    import dp_accounting as dpa

    sampled = dpa.PoissonSampledDpEvent | dpa.TruncatedSubsampledGaussianDpEvent
    return _WHOLE_ORDERS if any(isinstance(leaf, sampled) for leaf, _ in parts) else ALL_ORDERS


def curve(parts: Leaves, doubled: bool, orders: tuple[float, ...]) -> Any:
    """Renyi divergence at every order; replace-one of a sampled Gaussian by joint convexity of exp((a-1) D_a)."""
    import dp_accounting as dpa

    from privkt.privacy._bins_event import BallsInBinsGaussianDpEvent

    a = np.array(orders)
    total = np.zeros_like(a)
    for leaf, times in parts:
        if isinstance(leaf, dpa.RandomizedResponseDpEvent):
            total += _library(leaf, times, orders, dpa.NeighboringRelation.REPLACE_ONE)
        elif isinstance(leaf, BallsInBinsGaussianDpEvent):  # no amplification is credited here: one bin, but which
            total += times * _gaussian(a, leaf.noise_multiplier, doubled)
        elif isinstance(leaf, dpa.TruncatedSubsampledGaussianDpEvent):
            whole = _gaussian(a, leaf.noise_multiplier, doubled)
            poisson = dpa.PoissonSampledDpEvent(leaf.sampling_probability, dpa.GaussianDpEvent(leaf.noise_multiplier))
            rare = min(1.0, math.prod(overflow(leaf)) * (1 + 3 * OVERFLOW_ERROR))
            mixed = np.logaddexp(
                np.log1p(-rare) + (a - 1) * curve(((poisson, 1),), doubled, orders), _log(rare) + (a - 1) * whole
            )
            total += times * np.minimum(whole, mixed / (a - 1))
        elif doubled and isinstance(leaf, dpa.GaussianDpEvent):
            total += times * _gaussian(a, leaf.noise_multiplier, doubled)
        elif doubled and isinstance(leaf, dpa.PoissonSampledDpEvent):
            q, whole = leaf.sampling_probability, _gaussian(a, leaf.event.noise_multiplier, doubled)
            total += times * np.logaddexp(np.log1p(-q), np.log(q) + (a - 1) * whole) / (a - 1)
        else:
            total += _library(leaf, times, orders, dpa.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return total


def _library(leaf: Any, times: int, orders: tuple[float, ...], relation: Any) -> Any:
    import dp_accounting as dpa

    accountant = dpa.rdp.RdpAccountant(orders, relation)
    accountant.compose(leaf, times)
    return accountant.rdp


def _gaussian(a: Any, noise_multiplier: float, doubled: bool) -> Any:
    return (4 if doubled else 1) * a / (2 * noise_multiplier**2)


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf

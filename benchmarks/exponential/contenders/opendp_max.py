"""OpenDP: noisy max over the utilities of one token, by its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..cases import World
from .base import Chooser, Contender


def measurement(measure: str, epsilon: float) -> Any:
    """Noisy max of utilities of sensitivity 1, whose cost it is asked for."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.linf_distance(T=float)
    made = dp.m.make_noisy_max(*space, getattr(dp, measure)(), scale=2 / epsilon)
    cost, bound = made.map(1.0), epsilon if measure == "max_divergence" else epsilon**2 / 8
    if not bound * (1 - 1e-9) <= cost <= bound * (1 + 1e-9):
        raise ValueError(f"noisy max must cost {bound}, got {cost}")
    return made


class OpenDPMax(Contender):
    """`make_noisy_max` for pure differential privacy: exponential noise, so the law of permute-and-flip."""

    name = "opendp: noisy max"
    package = "opendp"
    guarantee = "pure, of its map; exact comparisons, secure generator; utilities are the caller's floats"
    stated = "permute-and-flip"
    tokens = 4
    choices, tail_choices, tails = 5_000, 200, 1 << 16
    measure: ClassVar[str] = "max_divergence"

    def __init__(self, world: World) -> None:
        self.world, self.select = world, measurement(self.measure, world.epsilon)

    def draw(self, ids: Tensor) -> list[int]:
        return [self.select(row) for row in self.world.utilities(ids).tolist()]

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser:
        select, row = measurement(cls.measure, epsilon), list(utilities)
        return lambda number: np.array([select(row) for _ in range(number)])


class OpenDPGumbel(OpenDPMax):
    """`make_noisy_max` for zero-concentrated privacy: Gumbel noise, so the law of the exponential mechanism."""

    name = "opendp: noisy max, zCDP"
    guarantee = "zCDP epsilon^2/8, of its map; exact comparisons, secure generator; utilities are the caller's floats"
    stated = "exponential"
    measure = "zero_concentrated_divergence"

"""diffprivlib: a mechanism made anew from the utilities of each token, and one draw of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..cases import World
from .base import Chooser, Contender


class DiffprivlibExponential(Contender):
    """`mechanisms.Exponential`: cumulative probabilities and one uniform number."""

    name = "diffprivlib: Exponential"
    package = "diffprivlib"
    guarantee = "pure, stated; float64, secure generator"
    tokens = 4
    choices, tail_choices = 5_000, 200
    kind: ClassVar[str] = "Exponential"

    def __init__(self, world: World) -> None:
        self.world, self.made = world, self.made_by(world.epsilon)

    @classmethod
    def made_by(cls, epsilon: float) -> Any:
        from diffprivlib import mechanisms

        kind = getattr(mechanisms, cls.kind)
        return lambda utility: kind(epsilon=epsilon, sensitivity=1.0, utility=utility)

    def draw(self, ids: Tensor) -> list[int]:
        return [self.made(row).randomise() for row in self.world.utilities(ids).tolist()]

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser:
        mechanism = cls.made_by(epsilon)(list(utilities))
        return lambda number: np.array([mechanism.randomise() for _ in range(number)])


class DiffprivlibFlip(DiffprivlibExponential):
    """`mechanisms.PermuteAndFlip`: candidates in random order, each with a coin, which takes their number squared."""

    name = "diffprivlib: PermuteAndFlip"
    stated = "permute-and-flip"
    tokens = 1
    tail_choices = 0  # most of a minute each
    kind = "PermuteAndFlip"

"""What everybody writes first: all distances of the batch, softmax, multinomial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..cases import World
from .base import Chooser, Contender

ROWS = 64


class Softmax(Contender):
    """cdist, softmax and multinomial in float32."""

    name = "torch: cdist, softmax, multinomial"
    guarantee = "none: float32, torch's generator"

    def __init__(self, world: World) -> None:
        self.world = world

    def inputs(self, ids: Tensor) -> Tensor:
        return self.world.vectors[ids]

    def draw(self, tokens: Tensor) -> Tensor:
        scores = torch.cdist(tokens, self.world.vectors) * -self.world.rate
        return torch.multinomial(scores.softmax(1), 1)[:, 0]

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser:
        chances = (torch.tensor(utilities) * (epsilon / 2)).softmax(0)

        def choose(number: int) -> np.ndarray:
            parts = [torch.multinomial(chances.expand(len(part), -1), 1)[:, 0] for part in _parts(number)]
            return torch.cat(parts).numpy()

        return choose


def _parts(number: int) -> tuple[Tensor, ...]:
    return torch.arange(number).split(ROWS)

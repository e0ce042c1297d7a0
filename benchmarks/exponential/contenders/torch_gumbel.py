"""Gumbel noise on every candidate, a few tokens at a time, so that no batch times vocabulary is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..cases import World
from .base import Chooser, Contender

CHUNK = 64


def noisy_max(scores: Tensor) -> Tensor:
    """The place of the largest score plus Gumbel noise, for each row."""
    return (scores - torch.empty_like(scores).exponential_().log_()).argmax(1)


class Gumbel(Contender):
    """The largest score plus Gumbel noise, in float32."""

    name = "torch: Gumbel in chunks"
    guarantee = "none: float32, torch's generator"
    dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, world: World) -> None:
        self.rate = world.rate
        self.vectors = world.vectors

    def inputs(self, ids: Tensor) -> Tensor:
        return self.vectors[ids]

    def scores(self, part: Tensor) -> Tensor:
        return torch.cdist(part, self.vectors) * -self.rate

    def draw(self, tokens: Tensor) -> Tensor:
        return torch.cat([noisy_max(self.scores(part)) for part in tokens.split(CHUNK)])

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser:
        scores = (torch.tensor(utilities) * (epsilon / 2)).to(cls.dtype)

        def choose(number: int) -> np.ndarray:
            parts = torch.arange(number).split(CHUNK)
            return torch.cat([noisy_max(scores.repeat(len(part), 1)) for part in parts]).numpy()

        return choose


class GumbelBfloat16(Gumbel):
    """The same in bfloat16 from the product on: distances from norms and a product, as cdist has no bfloat16."""

    name = "torch: Gumbel in chunks, bf16"
    guarantee = "none: bfloat16, torch's generator"
    dtype = torch.bfloat16

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.squares = world.vectors.square().sum(1)
        self.half = world.vectors.bfloat16()

    def scores(self, part: Tensor) -> Tensor:
        products = (part.bfloat16() @ self.half.T).float()
        squares = part.square().sum(1, keepdim=True) + self.squares - 2 * products
        return (squares.clamp_(min=0).sqrt_() * -self.rate).bfloat16()

"""privkt as its users call it: the mechanism by its name, over the table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from privkt.plugins import get_manager

from ..cases import World
from .base import Contender
from .privkt_words import EXACT


class Mechanism(Contender):
    """`exponential` calibrated to its range, so that its law is everybody's.

    Its set-up goes on to the first draw from the list of neighbours.
    """

    name = "privkt: mechanism exponential"
    guarantee = EXACT
    tokens = 1 << 16

    def __init__(self, world: World) -> None:
        create = get_manager().create
        self.mechanism = create("mechanism", "exponential", world.vectors.numpy(), world.epsilon, calibrate="range")
        self.mechanism.sample_ids(np.zeros(world.words + 1, dtype=np.int64))

    def draw(self, ids: Tensor) -> Tensor:
        return torch.from_numpy(self.mechanism.sample_ids(ids.numpy()))

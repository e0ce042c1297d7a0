"""What every contender has: a model of its own, and one method that does a whole step."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..cases import Case
from ..models import Batch, trainable


@dataclass(frozen=True)
class Setting:
    """What a contender is made with. `steps` is the most that are taken; noise is a multiple of the clipping norm."""

    case: Case
    device: str
    steps: int
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    max_grad_norm: float = 1.0
    noise_multiplier: float = 1.0


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of all timed steps, as torch makes it."""
    return torch.optim.AdamW(parameters, lr=1e-3)


class Contender(ABC):
    """One way to train. `step` does forward, backward, clipping, noise and the optimizer.

    `package` is what must be importable; `model` is freshly built and belongs to the contender.
    """

    name: ClassVar[str]
    private: ClassVar[bool] = True
    package: ClassVar[str | None] = None

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        self.setting, self.model = setting, model
        self.weights = trainable(model)  # by the plain model's names, before any library wraps it
        self.parameters = list(self.weights.values())

    @classmethod
    def absent(cls, case: Case) -> str | None:
        """Why this contender does not take part in a case, or None."""
        if cls.package is not None and importlib.util.find_spec(cls.package) is None:
            return f"{cls.package} is not installed"
        return None

    @abstractmethod
    def step(self, batch: Batch) -> None:
        """One whole training step."""

    def close(self) -> None:  # noqa: B027
        """Gives back what a step borrowed from the process."""

"""No privacy: the path that transformers gives everybody."""

from __future__ import annotations

from torch import nn

from ..models import Batch
from .base import Contender, Setting


class Plain(Contender):
    """`model(**batch).loss`, backward, step."""

    name = "plain"
    private = False

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        self.optimizer = setting.optimizer(self.parameters)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        self.model(**batch).loss.backward()
        self.optimizer.step()

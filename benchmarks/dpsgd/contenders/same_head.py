"""No privacy, but the head that privkt uses: what private training itself costs is the ratio to this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from privkt.dpsgd.heads import hidden_states
from privkt.kernels import linear_cross_entropy
from privkt.kernels.head import HeadGradient

from ..models import Batch, next_tokens
from .base import Contender, Setting


class SameHead(Contender):
    """Hidden states into `linear_cross_entropy`, so that no [B, T, V] logits are made."""

    name = "same head"
    private = False

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        self.optimizer = setting.optimizer(self.parameters)

    def step(self, batch: Batch) -> None:
        find: Callable[[], nn.Linear] = self.model.get_output_embeddings  # type: ignore[assignment]
        head = find()
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = next_tokens(batch["labels"])
        hidden = hidden_states(self.model, head, inputs)[:, -labels.shape[1] :]
        trained: list[HeadGradient] = []
        watch = trained.append if head.weight.requires_grad else None
        self.optimizer.zero_grad()
        linear_cross_entropy(hidden, head.weight.detach(), labels, watch=watch).mean().backward()
        for gradient in trained:
            _add_to(cast(nn.Parameter, head.weight), gradient)
        self.optimizer.step()


def _add_to(weight: nn.Parameter, gradient: HeadGradient) -> None:
    """Adds the head's own gradient, slice by slice of the vocabulary, to what a tied embedding already has."""
    if weight.grad is None:
        weight.grad = weight.new_zeros(weight.shape)
    hidden: Tensor = gradient.hidden.flatten(0, 1)
    for start, stop in gradient.slices():
        weight.grad[start:stop].addmm_(gradient.left(start, stop).flatten(0, 1).T, hidden)

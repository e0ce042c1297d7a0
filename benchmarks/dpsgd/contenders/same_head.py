"""No privacy, but the head that privkt uses: what private training itself costs is the ratio to this one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..cases import Case
from ..models import Batch, next_tokens
from .base import Contender, Setting

MODULE = "privkt.kernels.head"


class SameHead(Contender):
    """Hidden states into `linear_cross_entropy`, so that no [B, T, V] logits are made."""

    name = "same head"
    private = False

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        self.optimizer = setting.optimizer(self.parameters)

    @classmethod
    def absent(cls, case: Case) -> str | None:
        if importlib.util.find_spec(MODULE) is None:
            return f"this privkt has no {MODULE}"
        if case.method == "full":
            return "the head is trained, and this loss gives no gradient of its weight"
        return None

    def step(self, batch: Batch) -> None:
        from privkt.kernels.head import linear_cross_entropy

        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[operator]
        with _without(head):
            hidden = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        labels = next_tokens(batch["labels"])
        losses = linear_cross_entropy(hidden[:, hidden.shape[1] - labels.shape[1] :], head.weight, labels)
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()


@contextmanager
def _without(head: nn.Module) -> Iterator[None]:
    """The model gives hidden states where it gave logits."""

    def identity(hidden: Tensor) -> Tensor:
        return hidden

    head.forward = identity
    try:
        yield
    finally:
        del head.forward

"""How much memory a private training takes: said before the first step, from what the rehearsal saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process, by what they are for.

    Units: bytes. weights: the whole model; rows: stored per-sample gradients of a microbatch; kept: what other
        gradients are made of, held until their clip factors are known; sums: the running sum and the noisy mean;
        optimizer: two values a trainable parameter; activations: what autograd saves for one microbatch (None before
        the rehearsal).
    """

    weights: int
    rows: int
    kept: int
    sums: int
    optimizer: int
    activations: int | None = None

    @property
    def total(self) -> int:
        """All that is known. Kept tensors are mostly activations too, and are counted once."""
        return self.weights + self.rows + self.sums + self.optimizer + max(self.kept, self.activations or 0)

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "per-sample rows": self.rows,
            "sums": self.sums,
            "optimizer": self.optimizer,
            "activations": self.activations,
        }
        named = ", ".join(f"{name} {in_words(size)}" for name, size in parts.items() if size is not None)
        return f"about {in_words(self.total)}: {named}"


class Saved:
    """Counts what autograd saves between `start` and `stop`: distinct storages that are not the model's own.

    Edge cases: inside checkpointed blocks nothing counts, since it is not kept.
    """

    def __init__(self, own: Any) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._seen: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    def start(self) -> None:
        """Begins to count, in this thread."""
        self._hooks.__enter__()

    def stop(self) -> int:
        """Bytes so far; nothing counts from now on."""
        self._hooks.__exit__(None, None, None)
        return sum(self._seen.values())


def in_words(size: float) -> str:
    """Bytes with three digits and a unit."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.3g} {unit}"
        size /= 1024
    raise AssertionError

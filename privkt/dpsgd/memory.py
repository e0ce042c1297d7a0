"""How much memory a private training takes: said before the first step, from what the rehearsal saw."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from privkt import kernels
from privkt.contracts.progress import Progress
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.modes import values_in_rows
from privkt.kernels.optimizers import why_not

LOG = logging.getLogger("privkt.dpsgd")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_MEMINFO = Path("/proc/meminfo")
_STATES = {"SGD": 0, "RMSprop": 1, "Adagrad": 1, "Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process at its fullest, by what they are for.

    Units: bytes. weights: the whole model; rows: stored per-sample gradients of a microbatch; kept: what its other
        gradients are made of, until their clip factors are known; sums: of several microbatches, and the noisy mean
        where one is made; optimizer: its state; activations: what autograd saves for a microbatch, and what
        checkpointing makes again at a time. kept and activations are None before the rehearsal. samples: the microbatch
        they are for.
    Accuracy: of records no longer than the rehearsed ones. What a layer needs only while it runs is not in it: peaks of
        what torch hands out were 0.9 to 1.4 times the plan (tests/dpsgd/test_memory.py). What the system's allocator
        holds back comes on top. kept and activations tell how long three records are: they stay here.
    """

    weights: int
    rows: int
    sums: int
    optimizer: int
    samples: int
    kept: int | None = None
    activations: int | None = None

    @property
    def total(self) -> int:
        """All that is known. While gradients come, activations go; most of what is kept is both."""
        return self.weights + self.rows + self.sums + self.optimizer + max(self.kept or 0, self.activations or 0)

    @property
    def each(self) -> float:
        """What one more record in the microbatch takes."""
        return (self.rows + max(self.kept or 0, self.activations or 0)) / self.samples

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "per-sample rows": self.rows,
            "kept for norms and sums": self.kept,
            "activations": self.activations,
            "sums": self.sums,
            "optimizer": self.optimizer,
        }
        named = ", ".join(f"{name} {in_words(size)}" for name, size in parts.items() if size is not None)
        return f"about {in_words(self.total)} with {self.samples} records at once ({named})"

    def advice(self, free: int | None) -> str | None:
        """What to change where more is needed than `free` bytes, beside the weights that are there; else None."""
        needed = self.total - self.weights
        if free is None or needed <= free:
            return None
        fixed = self.sums + self.optimizer
        fitting = int((free - fixed) / self.each) if self.each else 0
        smaller = f"microbatch_size={fitting}" if 1 <= fitting < self.samples else "an adapter (LoRA)"
        return (
            f"PrivateTraining: memory for a step must be free, got {in_words(free)} where about {in_words(needed)} "
            f"more will be needed; use {smaller}, or model.gradient_checkpointing_enable()"
        )


class Seen(NamedTuple):
    """Of a batch of `samples`: bytes of activations and of what gradients are kept as; stored values of a unit."""

    samples: int
    activations: int
    kept: int
    columns: int


class Watch:
    """What autograd saves in the rehearsal's first batch, and what its gradients are kept as.

    Edge cases: a checkpointed block saves its inputs, and everything only while it is made again, one block at a time.
        (Models of transformers do not checkpoint in the rehearsal, so that what blocks save is seen there.)
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._own = {storage.data_ptr() for storage in _storages(_tensors_of(model))}
        self._saved: dict[int, tuple[int, nn.Module | None]] = {}
        self._inputs: dict[int, int] = {}
        self._block: nn.Module | None = None
        self._on = self._seen = False
        self.found: Seen | None = None

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if self._on and storage.data_ptr() not in self._own:
            self._saved.setdefault(storage.data_ptr(), (storage.nbytes(), self._block))
        return tensor.detach()  # the tensor itself, if it is an output, would hold its graph and be held by it

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around the first batch. Edge cases: a compiled model is not watched, which would compile it again."""
        if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in self._model.modules()):
            yield
            return
        handles = []
        for block in self._model.modules():
            if _is_checkpointed_block(block):
                handles.append(block.register_forward_pre_hook(self._enter))
                handles.append(block.register_forward_hook(self._leave))
        self._on = self._seen = True
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            self._on = False
            for handle in handles:
                handle.remove()

    def _enter(self, block: nn.Module, args: Any) -> None:
        self._block = block
        if self._on:
            self._inputs.update({s.data_ptr(): s.nbytes() for s in _storages(x for x in args if isinstance(x, Tensor))})

    def _leave(self, block: nn.Module, args: Any, output: Any) -> None:
        self._block = None

    def _activations(self) -> int:
        blocks: dict[nn.Module | None, int] = {}
        for size, block in self._saved.values():
            blocks[block] = blocks.get(block, 0) + size
        outside = blocks.pop(None, 0)
        inputs = sum(size for place, size in self._inputs.items() if self._saved.get(place, (0, self))[1] is not None)
        return outside + (inputs + max(blocks.values()) if blocks else 0)

    def before_backward(self) -> None:
        """Everything is saved that will be."""
        self._on = False

    def after_backward(self, gradients: SampleGradients, samples: int) -> None:
        """What is left for norms and sums."""
        if self._seen:
            kept = sum(storage.nbytes() for storage in _storages(gradients.kept_tensors()))
            self.found = Seen(samples, self._activations(), kept, gradients.columns)


class Footprint:
    """The plan of one training, and its watch on the rehearsal."""

    def __init__(self, engine: Engine, optimizer: torch.optim.Optimizer, samples: int) -> None:
        self.watch = Watch(engine.model)
        layout = engine.layout
        self._device, self._told = layout.device, False
        self._units = samples // engine.records_per_unit  # that have rows at a time
        stored = values_in_rows(layout) if kernels.runs_on("clipped_product_sum", layout.device) else layout.width
        states = _STATES.get(type(optimizer).__name__, 2)
        if states == 0 and any(group.get("momentum") for group in optimizer.param_groups):
            states = 1
        self._before = MemoryPlan(
            weights=sum(storage.nbytes() for storage in _storages(_tensors_of(engine.model))),
            rows=4 * self._units * stored,
            sums=(8 + (4 if why_not(optimizer) else 0)) * layout.width,
            optimizer=states * sum(p.numel() * p.element_size() for _, p in layout.named()),
            samples=samples,
        )

    @property
    def plan(self) -> MemoryPlan:
        """With what the rehearsal saw, once it did."""
        if self.watch.found is None:
            return self._before
        seen, times = self.watch.found, self._before.samples / self.watch.found.samples
        return replace(
            self._before,
            rows=4 * self._units * seen.columns,
            kept=round(seen.kept * times),
            activations=round(seen.activations * times),
        )

    def tell(self, progress: Progress) -> None:
        """Says the plan, once, and what to change if this machine has less."""
        if self._told:
            return
        self._told, plan = True, self.plan
        progress.task(f"memory: {plan}", 1, "plan").advance(1)
        LOG.info("memory: %s", plan)
        if (advice := plan.advice(free_memory(self._device))) is not None:
            LOG.warning(advice)


def free_memory(device: torch.device) -> int | None:
    """Bytes that this device (or machine) can still give; None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    if _MEMINFO.exists():
        line = next(line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    known = "SC_AVPHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None


def in_words(size: float) -> str:
    """Bytes with three digits and a unit."""
    index = 0
    while size >= 1000 and index < len(_UNITS) - 1:
        size, index = size / 1024, index + 1
    return f"{size:.3g} {_UNITS[index]}"


def _tensors_of(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _storages(tensors: Iterable[Tensor]) -> Iterable[Any]:
    found = {storage.data_ptr(): storage for storage in (x.untyped_storage() for x in tensors)}
    return found.values()


def _is_checkpointed_block(module: nn.Module) -> bool:
    if not getattr(module, "gradient_checkpointing", False):
        return False
    return not any(getattr(inner, "gradient_checkpointing", False) for inner in module.modules() if inner is not module)

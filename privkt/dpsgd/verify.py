"""The check before the first step: does the engine give, on this very model, what a loop over samples gives?

It rehearses the user's own loop body on a few records: first all of them through the engine (with a padding sample),
then again with one record masked out, then one record at a time through ordinary autograd. Nothing of it counts as a
step. The outcome is private and local; its message holds pass or fail and a layer's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from privkt import kernels
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.errors import VerificationFailed

_TOLERANCE = 1e-4  # of a sample's whole gradient; float32 rounding stays near 1e-6, a wrong rule is off by far more
_HALF_TOLERANCE = 0.15  # bfloat16 and float16 models round every activation
_PROBE_SLACK = 1e-5


class Rehearsal:
    """Which part of the check the next batch belongs to, and what has been found so far.

    Memory: at most a copy of the rows and one more row at a time.
    """

    def __init__(self, engine: Engine, max_grad_norm: float, records: int) -> None:
        self._engine, self._norm, self._records = engine, max_grad_norm, records
        self._rows: Tensor | None = None
        self._with = torch.empty(0)
        self._moved = math.inf
        self._batch = 0
        self._wrong: str | None = None

    def batches(self) -> Iterator[tuple[list[int], list[bool]]]:
        """Record positions and mask of each rehearsed batch, in order."""
        some = list(range(self._records))
        other = some[-1]  # takes the place of the removed record, masked: coupled samples would notice
        yield [*some, 0], [True] * self._records + [False]
        yield [other, *some[1:], other], [False] + [True] * (self._records - 1) + [False]
        for position in some:
            yield [position], [True]

    @property
    def through_engine(self) -> bool:
        """Whether the next batch runs through the engine (or through ordinary autograd)."""
        return self._batch < 2

    def take(self, losses: Tensor, mask: Tensor) -> None:
        """Uses the losses of the current batch."""
        if self._batch == 0:
            self._rows = self._engine.rows(losses, mask).clone()
            self._with = self._clipped(self._rows)
            if bool(self._rows[self._records :].any()):
                self._wrong = "padding: a masked sample must have no gradient; check the collator"
        elif self._batch == 1:
            without = self._clipped(self._engine.rows(losses, mask))
            self._moved = float((self._with - without).norm()) / self._norm
        else:
            self._compare(self._batch - 2, losses)
        self._batch += 1

    def judge(self) -> None:
        """Raises VerificationFailed, naming a layer, if rows differ or one record moves the sum too far."""
        self._rows = None
        if self._wrong is None and not self._moved <= 1 + _PROBE_SLACK:
            self._wrong = (
                "sensitivity: removing one record must move the clipped sum by at most max_grad_norm; the model "
                "couples samples: train it without layers that mix them"
            )
        if self._wrong is not None:
            raise VerificationFailed(f"verify: fail, {self._wrong}")

    def _compare(self, position: int, losses: Tensor) -> None:
        """One record's row against its gradient by ordinary autograd, layer by layer."""
        assert self._rows is not None
        slots = self._engine.layout.slots
        found = torch.autograd.grad(losses.sum(), [slot.parameter for slot in slots], allow_unused=True)
        alone = [
            torch.zeros(slot.stop - slot.start, device=self._rows.device) if grad is None else grad.flatten().float()
            for slot, grad in zip(slots, found, strict=True)
        ]
        scale = sum(float(part.norm()) ** 2 for part in alone) ** 0.5
        tolerance = _HALF_TOLERANCE if self._engine.half_precision else _TOLERANCE
        for slot, part in zip(slots, alone, strict=True):
            difference = float((self._rows[position, slot.start : slot.stop] - part).norm())
            if not difference <= tolerance * scale + 1e-12:
                self._wrong = self._wrong or (
                    f"layer {slot.name!r}: its per-sample gradients must equal those of a loop over single samples; "
                    "the model couples samples or the layer's rule is wrong: freeze it or add a rule"
                )

    def _clipped(self, rows: Tensor) -> Tensor:
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        kernels.clip_and_sum(rows, self._norm, out=total)
        return total


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; random state and training flags as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    devices = [] if not torch.cuda.is_available() else list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

"""The check before the first step: does the engine give, on this very model, what a loop over samples gives?

It rehearses the user's own loop body on a few records (or units of records): first all of them through the engine
(with a padding sample), then again with one record masked out and all gradients kept as products that can be, then
one record at a time through ordinary autograd, all with dropout off; last, in training mode, it asks whether a
record's loss changes with another record of the batch. It looks at norms and clipped sums, which are what training
uses. Nothing of it counts as a step. The outcome is private and local; its message holds pass or fail and a layer's
name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from privkt import kernels
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.errors import VerificationFailed
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.memory import Watch
from privkt.dpsgd.sampling import layer_randomness

_TOLERANCE = 1e-4  # of a sample's whole gradient; float32 rounding stays near 1e-6, a wrong rule is off by far more
_HALF_TOLERANCE = 0.15  # bfloat16 and float16 models round every activation
_BOUND_SLACK = 1.0  # a square norm's upper bound may be this share above it: that of Gram matrices grows with length
_PROBE_SLACK = 1e-5
_WRONG_LAYER = (
    "its per-sample gradients must equal those of a loop over single samples; the model couples samples or the layer's "
    "rule is wrong: freeze it or add a rule"
)


class Rehearsal:
    """Which part of the check the next batch belongs to, and what has been found so far.

    Memory: one row a record, three more at a time. watch: sees what the first batch takes.
    """

    def __init__(self, engine: Engine, max_grad_norm: float, records: int, watch: Watch | None = None) -> None:
        self._engine, self._norm, self._records = engine, max_grad_norm, records
        self._watch = watch or Watch(engine.model)
        self._rows: list[Tensor] | None = None
        self._with = torch.empty(0)
        self._moved = math.inf
        self._batch = 0
        self._modes = {module: module.training for module in engine.model.modules()}
        self._losses: Tensor | None = None
        self._wrong: str | None = None

    def batches(self) -> Iterator[tuple[list[int], list[bool]]]:
        """Record positions and mask of each rehearsed batch, in order."""
        units = [self._unit(number) for number in range(self._records)]
        filler = [self._records - 1] * self._engine.records_per_unit
        padding = filler, [False] * len(filler)  # also in place of the removed unit: coupled samples would notice
        with self._watch.watching():
            yield _one_after_another([*units, ([0] * len(filler), padding[1])])
        yield _one_after_another([padding, *units[1:], padding])
        for positions, counts in units:
            alone = [position for position, counted in zip(positions, counts, strict=True) if counted]
            with self._engine.anchored():
                yield alone, [True] * len(alone)
        if self._records > 1:
            # Both hold every record, so that both are padded alike and dropout draws masks of one shape.
            for last in (0, self._records - 1):
                with as_trained(self._engine.model, self._modes):
                    yield [*range(self._records), last], [True] * (self._records + 1)

    def _unit(self, number: int) -> tuple[list[int], list[bool]]:
        """Where units have several records: two of them, and padding."""
        positions = [number, (number + 1) % self._records, *[0] * self._engine.records_per_unit]
        counts = [True, True, *[False] * self._engine.records_per_unit]
        return positions[: self._engine.records_per_unit], counts[: self._engine.records_per_unit]

    @property
    def through_engine(self) -> bool:
        """Whether the next batch runs through the engine (or through ordinary autograd)."""
        return self._batch < 2

    def take(self, losses: Tensor, mask: Tensor) -> None:
        """Uses the losses of the current batch."""
        if self._batch == 0:
            self._watch.before_backward()
            gradients = self._engine.backward(losses, mask)
            self._watch.after_backward(gradients, len(mask))
            self._rows = [_row(gradients, position) for position in range(self._records)]
            self._need_bounds(gradients)
            self._with = self._clipped(gradients)
        elif self._batch == 1:
            gradients = self._engine.backward(losses, mask, force="kept")
            self._need_same(gradients)
            self._moved = _length(self._with.sub_(self._clipped(gradients))) / self._norm
            self._with = torch.empty(0)
        elif self._batch < 2 + self._records:
            self._compare(self._batch - 2, losses)
        else:
            self._need_uncoupled(losses.detach().double()[: self._records])
        self._batch += 1

    def judge(self) -> None:
        """Raises VerificationFailed, naming a layer, if gradients differ or one record moves the sum too far."""
        self._rows = None
        if self._wrong is None and not self._moved <= 1 + _PROBE_SLACK:
            self._wrong = (
                "sensitivity: removing one record must move the clipped sum by at most max_grad_norm; the model "
                "couples samples: train it without layers that mix them"
            )
        if self._wrong is not None:
            raise VerificationFailed(f"verify: fail, {self._wrong}")

    def _need_bounds(self, gradients: SampleGradients) -> None:
        """The norms that clipping sees must bound the rows that are summed, from above."""
        assert self._rows is not None
        bounds, norms = (
            gradients.sqnorms()[:, 0],
            torch.tensor([_length(row) ** 2 for row in self._rows], dtype=torch.float64),
        )
        if bool(bounds[self._records :].any()):
            self._wrong = "padding: a masked sample must have no gradient, got a norm"
        found = bounds[: self._records].cpu()
        if not bool(((found >= norms * (1 - 1e-6)) & (found <= norms * (1 + _BOUND_SLACK) + 1e-30)).all()):
            self._wrong = (
                "norms: what clipping sees must be the norm of what is summed, from above; a rule's products or "
                "segments are wrong"
            )

    def _need_same(self, gradients: SampleGradients) -> None:
        """Held as products, gradients must be the rows that they were."""
        assert self._rows is not None
        for position in range(1, self._records):
            self._need_equal(position, _row(gradients, position))

    def _need_uncoupled(self, losses: Tensor) -> None:
        """In training mode, with the same random state: other records' losses may not depend on the last one."""
        if self._losses is None:
            self._losses = losses
            return
        tolerance = _HALF_TOLERANCE if self._engine.half_precision else _TOLERANCE
        if not bool(((losses - self._losses).abs() <= tolerance * (1e-2 + self._losses.abs())).all()):
            self._wrong = self._wrong or (
                "training mode: a record's loss must not depend on the others of its batch; the model couples samples "
                "when it trains: train it without layers that mix them"
            )

    def _compare(self, position: int, losses: Tensor) -> None:
        """One record's row against its gradient by ordinary autograd."""
        slots = self._engine.layout.slots
        losses.sum().backward()  # and not autograd.grad, which reentrant checkpointing refuses
        alone = torch.cat(
            [
                torch.zeros(slot.stop - slot.start, device=losses.device) if grad is None else grad.flatten().float()
                for slot in slots
                for grad in (slot.parameter.grad,)
            ]
        )
        for slot in slots:
            slot.parameter.grad = None
        self._need_equal(position, alone)

    def _need_equal(self, position: int, alone: Tensor) -> None:
        """Layer by layer, against the size of the whole gradient."""
        assert self._rows is not None
        tolerance = _HALF_TOLERANCE if self._engine.half_precision else _TOLERANCE
        allowed = tolerance * _length(alone) + 1e-12
        for slot in self._engine.layout.slots:
            part = slice(slot.start, slot.stop)
            if not float((self._rows[position][part] - alone[part]).norm()) <= allowed:
                self._wrong = self._wrong or f"layer {slot.name!r}: {_WRONG_LAYER}"

    def _clipped(self, gradients: SampleGradients) -> Tensor:
        total = torch.zeros(self._engine.width, dtype=torch.float64, device=gradients.mask.device)
        bounds = gradients.sqnorms()[:, 0].contiguous()
        factors = kernels.clip_factors(bounds, self._norm, width=self._engine.width, mask=gradients.mask).factors
        gradients.add_clipped(total, factors.unsqueeze(1))
        return total


def _one_after_another(units: list[tuple[list[int], list[bool]]]) -> tuple[list[int], list[bool]]:
    return [p for positions, _ in units for p in positions], [c for _, counts in units for c in counts]


def _length(x: Tensor) -> float:
    """The norm in float64, without a copy in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def _row(gradients: SampleGradients, position: int) -> Tensor:
    """One sample's row, by the path that training takes: a sum in which it alone counts."""
    factors = torch.zeros(len(gradients.mask), 1, device=gradients.mask.device)
    factors[position] = 1
    row = torch.zeros(gradients.width, device=factors.device)
    gradients.add_clipped(row, factors)
    return row


@contextmanager
def as_trained(model: nn.Module, modes: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Training flags as in training, and each time the same random state; evaluation mode again afterwards."""
    with layer_randomness(0):  # a known state: nothing of the rehearsal is added to anything
        for module, mode in modes.items():
            module.training = mode
        try:
            yield
        finally:
            model.eval()


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

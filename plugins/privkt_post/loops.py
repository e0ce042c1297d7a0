"""One optimisation loop for public and unprotected trainings: seeded, resumable at the step, the last step kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privkt.contracts import BackendError, ProgressTask

_SECONDS_BETWEEN = 5.0


@dataclass(frozen=True)
class Course:
    """How a loop goes. `warmup` is a share of the steps; `clip` 0 leaves gradients as they are."""

    steps: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: float = 0.0
    clip: float = 0.0
    weight_decay: float = 0.0

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over the trained parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.learning_rate)
        if self.weight_decay:
            # fused: one pass over a whole model's weights and moments, where the plain one makes several
            return torch.optim.AdamW(
                parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=True
            )
        return torch.optim.Adam(parameters, lr=self.learning_rate, betas=self.betas)

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """Warm-up, then a constant rate or a straight line to 0."""
        warm = self.warmup * self.steps

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            return max(0.0, 1 - (step - warm) / max(1.0, self.steps - warm)) if self.schedule == "linear" else 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def run(
    parameters: Mapping[str, nn.Parameter],
    backward: Callable[[int], float],
    course: Course,
    *,
    checkpoint: Path | None,
    identity: str,
    task: ProgressTask,
    stop: Callable[[list[float]], bool] | None = None,
    every: float = _SECONDS_BETWEEN,
) -> list[float]:
    """The loss of every step. `backward(step)` adds a step's gradients and gives its loss.

    Guarantee: what is left in the parameters is the last step's; a resumed loop takes the steps that an uninterrupted
        one takes, if `backward` depends on the step alone.
    Edge cases: a checkpoint of another `identity` is not used. `stop` looks at the losses after each step.
    Raises: BackendError, when the loss is no finite number.
    """
    optimizer = course.make_optimizer(list(parameters.values()))
    scheduler = course.make_scheduler(optimizer)
    losses = _restore(checkpoint, identity, parameters, optimizer, scheduler)
    task.advance(len(losses))
    saved = time.monotonic()
    while len(losses) < course.steps and not (stop is not None and losses and stop(losses)):
        optimizer.zero_grad(set_to_none=True)
        loss = backward(len(losses))
        if not torch.isfinite(torch.tensor(loss)):
            raise BackendError(
                f"post: the loss of step {len(losses) + 1} of {course.steps} must be a finite number, and is not; "
                "lower the learning rate"
            )
        if course.clip:
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), course.clip)
        optimizer.step()
        scheduler.step()
        losses.append(loss)
        if checkpoint is not None and time.monotonic() - saved >= every:
            _save(checkpoint, identity, parameters, optimizer, scheduler, losses)
            saved = time.monotonic()
        task.advance(1)
    if checkpoint is not None:
        _save(checkpoint, identity, parameters, optimizer, scheduler, losses)
    return losses


def order(size: int, batch: int, step: int, seed: int) -> list[int]:
    """The indices of a step's batch: one permutation an epoch, the same for the same seed."""
    start = step * batch
    found: list[int] = []
    while len(found) < batch:
        epoch, place = divmod(start + len(found), size)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        found += torch.randperm(size, generator=generator).tolist()[place : place + batch - len(found)]
    return found


def _restore(
    file: Path | None, identity: str, parameters: Mapping[str, nn.Parameter], optimizer: Any, scheduler: Any
) -> list[float]:
    if file is None or not file.is_file():
        return []
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["identity"] != identity:
            return []
        weights: dict[str, Tensor] = state["weights"]
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        return list(state["losses"])
    except Exception as error:  # a damaged file may fail in any way the unpickler can
        raise BackendError(
            f"post: the checkpoint {file.name} must be readable, and reading it raised {type(error).__name__}; "
            "delete it"
        ) from None


def _save(
    file: Path, identity: str, parameters: Mapping[str, nn.Parameter], optimizer: Any, scheduler: Any, losses: Any
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(
        {
            "identity": identity,
            "weights": {name: parameter.detach().cpu() for name, parameter in parameters.items()},
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "losses": losses,
        },
        partial,
    )
    os.replace(partial, file)

"""Ordinary training: seeded order, accumulated gradients, AdamW with a schedule, resumable at the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from privkt.contracts import BackendError, ProgressTask, Recipe
from privkt.privacy import RefusedInput
from privkt_transformers.checkpoints import Checkpoint
from privkt_transformers.devices import memory_advice

SCHEDULES = ("constant", "linear", "cosine")
_TOKENS_AT_ONCE = {"cpu": 1024}
_TOKENS_ELSEWHERE = 16_384


def steps_of(recipe: Recipe, size: int) -> int:
    """Logical steps of a training over `size` examples."""
    return max(1, math.ceil(recipe.epochs * size / recipe.batch_size))


def rows_at_once(recipe: Recipe, device: torch.device, width: int) -> int:
    """Rows of one forward and backward pass: as asked, or what keeps the activations in a processor's caches."""
    if recipe.microbatch_size != "auto":
        return int(recipe.microbatch_size)
    tokens = _TOKENS_AT_ONCE.get(device.type, _TOKENS_ELSEWHERE)
    return max(1, min(recipe.batch_size, tokens // max(1, width)))


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW and its schedule. `warmup` is a share of the steps (below 1) or their number."""
    if recipe.schedule not in SCHEDULES:
        raise RefusedInput(
            f"recipe.schedule: must be one of {', '.join(SCHEDULES)}, got {recipe.schedule!r}; choose one"
        )
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    warm = recipe.warmup * steps if recipe.warmup < 1 else recipe.warmup

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = (step - warm) / max(1.0, steps - warm)
        if recipe.schedule == "linear":
            return max(0.0, 1 - done)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done))) if recipe.schedule == "cosine" else 1.0

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@dataclass
class Work:
    """What a training loop moves: named trainable parameters, and the loss of the examples with given indices."""

    parameters: dict[str, torch.nn.Parameter]
    losses: Callable[[Sequence[int]], torch.Tensor]
    weights: Sequence[float]
    lengths: Sequence[int]
    device: torch.device
    autocast: bool = False


def run(work: Work, recipe: Recipe, checkpoint: Checkpoint, task: ProgressTask) -> None:
    """Trains: each step moves along the gradient of mean(weight x loss) over its batch.

    Guarantee: order and dropout depend on the recipe's seed and the step alone, so that a resumed training takes the
        steps that an uninterrupted one takes; the caller's random state is untouched.
    Raises: BackendError, when the loss stops being a number, or memory ends.
    """
    size = len(work.weights)
    steps = steps_of(recipe, size)
    parameters = list(work.parameters.values())
    optimizer, scheduler = make_optimizer(parameters, recipe, steps)
    start = checkpoint.restore(work.parameters, optimizer, scheduler)
    task.advance(start)
    order = _order(recipe, size, steps)
    weights = torch.tensor(list(work.weights), dtype=torch.float32, device=work.device)
    piece = rows_at_once(recipe, work.device, max(work.lengths))
    remedy = "lower recipe.microbatch_size or recipe.max_length"
    cuda = [work.device] if work.device.type == "cuda" else []
    with memory_advice("train", remedy), torch.random.fork_rng(devices=cuda), torch.enable_grad():
        for step in range(start, steps):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = sorted(chosen, key=lambda i: work.lengths[i])
            for first in range(0, len(batch), piece):
                part = batch[first : first + piece]
                with torch.autocast(work.device.type, torch.bfloat16, enabled=work.autocast):
                    losses = work.losses(part)
                loss = (losses * weights[part]).sum() / len(batch)
                if not torch.isfinite(loss):
                    raise BackendError(
                        f"train: the loss of step {step + 1} of {steps} must be a finite number, and it is not; lower "
                        "recipe.learning_rate"
                    )
                loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            checkpoint.note(step + 1, work.parameters, optimizer, scheduler)
            task.advance(1)


def _order(recipe: Recipe, size: int, steps: int) -> list[int]:
    """Indices in the order they are used: one permutation an epoch."""
    total = min(steps * recipe.batch_size, max(1, math.ceil(recipe.epochs * size)))
    draw = np.random.default_rng([abs(recipe.seed), 1])
    order: list[int] = []
    while len(order) < total:
        order.extend(draw.permutation(size).tolist())
    return order[:total]

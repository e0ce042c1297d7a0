"""How far one record can move what a contender releases, found from its weights alone.

A step of SGD whose learning rate is batch / C, C being the clipping norm, moves the weights by minus the clipped sum
in units of C. The same step with one record emptied must move them by something that differs by at most 1: that is
what the noise was made for. C is a twentieth of the smallest gradient norm: a small clipping norm is common, and clips
a batch's mean as well, where a library takes that for a record. Contenders take no noise, or the same noise in both
steps, which cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from . import models
from .cases import Case
from .contenders import Contender, Setting

Moves = dict[str, Tensor]


def reference(case: Case) -> dict[str, Any]:
    """By a loop over single records: C, and the clipped sum in units of C, by parameter in float64."""
    model = models.build(case, "cpu")
    weights = models.trainable(model)
    batch = models.batch_of(case, "cpu")

    def gradient(record: int) -> Iterable[Tensor]:
        one = {name: value[record : record + 1] for name, value in batch.items()}
        loss = models.losses_of(models.logits_of(model, one), one["labels"]).sum()
        return (part.double() for part in torch.autograd.grad(loss, list(weights.values())))

    norms = [_norm(gradient(record)) for record in range(case.batch)]
    total = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights.values()]
    for record, norm in enumerate(norms):
        for part, grad in zip(total, gradient(record), strict=True):
            part.add_(grad, alpha=1 / norm)
    return {"max_grad_norm": min(norms) / 20, "sum": dict(zip(weights, total, strict=True))}


def probe(contender: type[Contender], case: Case, device: str, expected: dict[str, Any]) -> dict[str, Any]:
    """What the contender's weights say.

    Returns `moved`, the largest distance in units of C over the emptied records (at most 1 is right); `error`, the
    distance of the clipped sum from the loop's, as a share of it; `untrained`, parameters that should move and stay.
    Units: weights are float32, so both numbers are known to about 1e-4.
    """
    norm = expected["max_grad_norm"]

    def moves(emptied: list[int]) -> Moves:
        torch.manual_seed(0)
        model = models.build(case, device)
        setting = Setting(case, device, 1, lambda p: torch.optim.SGD(p, lr=case.batch / norm), norm, 0.0)
        made = contender(setting, model)
        before = {name: weight.detach().double().cpu() for name, weight in made.weights.items()}
        made.step(models.emptied(models.batch_of(case, device), emptied))
        made.close()
        return {name: before[name] - weight.detach().double().cpu() for name, weight in made.weights.items()}

    whole, nothing = moves([]), moves(list(range(case.batch)))
    steps = (moves([record]) for record in range(0, case.batch, case.batch // case.probed))
    moved = max(_distance(whole, step) for step in steps)
    sums = {name: value - nothing[name] for name, value in whole.items()}
    length = _norm(expected["sum"].values())
    still = [name for name, part in expected["sum"].items() if bool(part.any()) and not bool(sums[name].any())]
    found = {"moved": moved, "error": _distance(sums, expected["sum"]) / length}
    return {
        **{name: round(value, 6) if math.isfinite(value) else None for name, value in found.items()},
        "untrained": len(still),
        "parameters": len(sums),
    }


def _distance(a: Moves, b: Moves) -> float:
    return _norm(a[name] - b[name] for name in a)


def _norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))

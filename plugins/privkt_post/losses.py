"""The losses of distillation and transfer, on tensors alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softmax(scores / T), times T^2, for each row; [p].

    Shapes: teacher, student: [p, V].
    """
    p = F.log_softmax(teacher / temperature, -1)
    q = F.log_softmax(student / temperature, -1)
    return (p.exp() * (p - q)).sum(-1) * temperature**2


def transfer_losses(
    small_with: Tensor,
    small_without: Tensor,
    large_with: Tensor,
    large_without: Tensor,
    *,
    alpha: float,
    temperature: float,
) -> Tensor:
    """(1 - alpha) of the output's divergence and alpha of the shift's, for each place; [p].

    Shapes: all [p, V]. `_with` and `_without` are scores behind the prompt and without one; only `large_with` moves.
    Guarantee: differences are treated as scores, so a vector added to both of a model's leaves the shift as it is. At
        alpha 0 or 1 the other loss is not computed.
    References: Wang et al. 2025, Equations 3 to 5.
    """
    total = large_with.new_zeros(large_with.shape[0])
    if alpha < 1:
        total = total + (1 - alpha) * divergence(small_with, large_with, temperature)
    if alpha > 0:
        total = total + alpha * divergence(small_with - small_without, large_with - large_without, temperature)
    return total


def kept_top(scores: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, log-probabilities, log of all the rest) of the k likeliest tokens of softmax(scores / T).

    Shapes: scores: [..., V]; returns [..., k], [..., k], [...].
    Guarantee: nothing is renormalised: kept and rest sum to 1. With k >= V the rest is log 0.
    """
    logs = F.log_softmax(scores.float() / temperature, -1)
    top = logs.topk(min(k, logs.shape[-1]), -1)
    if top.indices.shape[-1] == logs.shape[-1]:
        return top.indices, top.values, torch.full_like(logs[..., 0], -torch.inf)
    rest = logs.scatter(-1, top.indices, -torch.inf).logsumexp(-1)
    return top.indices, top.values, rest


def kept_divergence(ids: Tensor, logs: Tensor, rest: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL over the kept tokens and one further outcome, all others together, times T^2; [...].

    Shapes: ids, logs: [..., k]; rest: [...]; student: [..., V] scores.
    Guarantee: with every token kept, the full divergence; with fewer a lower bound of it (data processing) whose
        minimum is at a student that agrees on every kept token.
    """
    q = F.log_softmax(student.float() / temperature, -1)
    own = q.gather(-1, ids)
    kept = (logs.exp() * (logs - own)).sum(-1)
    if ids.shape[-1] == student.shape[-1]:
        return kept * temperature**2
    others = q.scatter(-1, ids, -torch.inf).logsumexp(-1)
    share = rest.exp()
    other = torch.where(share > 0, share * (rest.clamp(min=-80.0) - others), torch.zeros_like(share))
    return (kept + other) * temperature**2


def direction_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine of hidden states; [...]. Shapes: [..., d]."""
    return 1 - F.cosine_similarity(teacher.float(), student.float(), dim=-1)

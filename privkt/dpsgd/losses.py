"""One loss a sample: what `PrivateTraining.step` takes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


def causal_lm_losses(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, *, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Next-token cross-entropy of each sequence, over its own tokens.

    Shapes: logits: [B, T, V] or [B, n + T, V] with n soft-prompt positions first; labels: [B, T], -100 where ignored;
        mask: [B, T], 0 where ignored. Returns [B] float32 (float64 for float64 logits).
    Edge cases: a sequence without a counted token has loss 0 and gradient 0.
    One sequence at a time, so no second [B, T, V] is made.
    """
    if labels.dim() != 2 or logits.dim() != 3 or logits.shape[0] != labels.shape[0]:
        raise ValueError(
            f"causal_lm_losses: logits must be [B, T, V] and labels [B, T], got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; give the labels of the same batch"
        )
    if mask is not None:
        labels = labels.masked_fill(mask == 0, IGNORED)
    logits = logits[:, logits.shape[1] - labels.shape[1] :]
    losses = []
    for rows, targets in zip(logits[:, :-1], labels[:, 1:], strict=True):
        rows = rows if rows.dtype == torch.float64 else rows.float()
        total = F.cross_entropy(rows, targets, ignore_index=IGNORED, reduction="sum")
        counted = (targets != IGNORED).sum() if reduction == "mean" else torch.ones((), device=total.device)
        losses.append(total / counted.clamp(min=1))
    return torch.stack(losses)


def classification_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample.

    Shapes: logits: [B, K]; labels: [B] class indices. Returns [B] float32 (float64 for float64 logits).
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"classification_losses: logits must be [B, K] and labels [B], got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; give one class index a sample"
        )
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), labels, reduction="none")

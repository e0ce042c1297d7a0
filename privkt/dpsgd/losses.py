"""One loss a sample: what `PrivateTraining.step` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privkt.dpsgd.heads import head_path, hidden_states
from privkt.dpsgd.taps import stands_in
from privkt.kernels import linear_cross_entropy

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


def causal_lm_losses_from_hidden(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """`causal_lm_losses` of the model's logits, without making them where its head is known.

    Shapes: inputs: what the model is called with, without labels; labels, mask: [B, T], as for `causal_lm_losses`; soft
        prompts may come before. Returns [B] float32 (float64 for a float64 model).
    Guarantee: `privkt.dpsgd.heads.head_path(model)` says which way is taken and why; both give the same losses and
        gradients to rounding. A trained head is chunked while a microbatch of private training is open, whose engine
        takes its gradient apart; elsewhere it needs autograd, and logits are made. In half precision and under autocast
        the chunked way computes its logits in float32.
    Edge cases: as for `causal_lm_losses`; tokens without a label cost nothing.
    """
    if "labels" in inputs:
        raise ValueError(
            "causal_lm_losses_from_hidden: inputs must not hold labels, or the model computes a loss of its own; "
            "pass them as the third argument"
        )
    path = head_path(model, samples=max(1, labels.shape[0]))
    losses = None if path.linear is None else _losses_of(path.linear, path.trained)
    if path.linear is None or losses is None:
        return causal_lm_losses(model(**inputs, use_cache=False).logits, labels, mask, reduction=reduction)
    if mask is not None:
        labels = labels.masked_fill(mask == 0, IGNORED)
    hidden = hidden_states(model, path.linear, inputs)
    if labels.dim() != 2 or hidden.dim() != 3 or hidden.shape[0] != labels.shape[0]:
        raise ValueError(
            f"causal_lm_losses_from_hidden: hidden states must be [B, T, d] and labels [B, T], got "
            f"{tuple(hidden.shape)} and {tuple(labels.shape)}; give the labels of the same batch"
        )
    # The labels move and not the states, which would be copied: the last position has none.
    return losses(
        hidden[:, hidden.shape[1] - labels.shape[1] :],
        F.pad(labels[:, 1:], (0, 1), value=IGNORED),
        reduction=reduction,
        ignore_index=IGNORED,
        softcap=path.softcap,
        scale=path.scale,
    )


def _losses_of(linear: nn.Linear, trained: bool) -> Callable[..., Tensor] | None:
    """What gives the losses of hidden states; None where that would lose a trained head's gradient."""
    if not (trained and torch.is_grad_enabled()):
        bias = None if linear.bias is None else linear.bias.detach()
        return lambda hidden, labels, **options: linear_cross_entropy(
            hidden, linear.weight.detach(), labels, bias, **options
        )
    return getattr(stands_in(linear), "losses", None)


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

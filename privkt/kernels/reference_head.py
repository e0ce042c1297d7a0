"""What the head's kernels must compute, in float64: softmax and cross-entropy of rows of logits, in place.

Rows of float64 logits, which no kernel takes, always run here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _mapped(logits: Tensor, scale: float, softcap: float) -> tuple[Tensor, Tensor]:
    """The model's map of the logits, and its derivative."""
    y = logits.double() * scale
    if softcap == 0:
        return y, torch.full_like(y, scale)
    t = torch.tanh(y / softcap)
    return softcap * t, scale * (1 - t * t)


def _store_gradient(
    logits: Tensor, y: Tensor, slope: Tensor, counts: Tensor, labels: Tensor, stats: Tensor, start: int
) -> None:
    """(softmax - onehot) times the slope, 0 for rows that do not count."""
    gradient = (y - stats[:, :1]).exp() / stats[:, 1:]
    here = (counts & (labels >= start) & (labels < start + logits.shape[1])).nonzero().squeeze(1)
    gradient[here, labels[here] - start] -= 1
    # where, not multiplication: 0 * NaN is NaN
    logits.copy_(torch.where(counts[:, None], gradient * slope, 0.0))


def head_losses_(
    logits: Tensor, labels: Tensor, scale: float, softcap: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Losses [n] and stats [n, 2] (maximum, sum of exp(value - maximum)) in float64.

    The logits become their gradients if wanted, and the mapped values otherwise.
    """
    counts = (labels >= 0) & (labels < logits.shape[1])
    stats = torch.zeros(logits.shape[0], 2, dtype=torch.float64, device=logits.device)
    losses = torch.zeros(logits.shape[0], dtype=torch.float64, device=logits.device)
    if logits.shape[1] == 0:
        return losses, stats
    y, slope = _mapped(logits, scale, softcap)
    top = y.amax(1)
    total = (y - top[:, None]).exp().sum(1)
    label_value = y.gather(1, torch.where(counts, labels, 0)[:, None]).squeeze(1)
    losses = torch.where(counts, total.log() - (label_value - top), 0.0)
    stats = torch.where(counts[:, None], torch.stack([top, total], 1), 0.0)
    if want_gradient:
        _store_gradient(logits, y, slope, counts, labels, stats, 0)
    else:
        logits.copy_(torch.where(counts[:, None], y, logits))
    return losses, stats


def head_gradient_(logits: Tensor, labels: Tensor, stats: Tensor, start: int, scale: float, softcap: float) -> None:
    """The gradients again, of the vocabulary from `start` on, from its logits and the stats."""
    y, slope = _mapped(logits, scale, softcap)
    _store_gradient(logits, y, slope, labels >= 0, labels, stats, start)

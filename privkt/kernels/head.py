"""The head of a language model: one cross-entropy loss a sample from hidden states, without the logits of a batch.

A few tokens at a time, their logits are made, turned into losses and into their own gradients, multiplied back into the
hidden states' width, and forgotten. Tokens that do not count are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from privkt.kernels import _schema, reference_head
from privkt.kernels.gemm import products_back, products_with

Reduction = Literal["mean", "sum"]
SCRATCH = {"cpu": 2**24, "cuda": 2**28}  # bytes of logits at a time
SMALLEST_CHUNK = 128  # tokens; fewer would read the weight from memory too often
_WIDENING_CHUNK = 512  # where each chunk widens the whole weight from half precision


@dataclass(frozen=True)
class Head:
    """What turns a hidden state h into logits: y = softcap tanh(scale (h weight^T + bias) / softcap).

    Shapes: weight [V, d]; bias [V] | None.
    Edge cases: softcap None leaves y = scale (...); scale None is 1.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"linear_cross_entropy: softcap must be positive or None, got {self.softcap}")
        if self.weight.dim() != 2 or (self.bias is not None and self.bias.shape != self.weight.shape[:1]):
            raise ValueError(
                f"linear_cross_entropy: weight must be [V, d] and bias [V], got {list(self.weight.shape)} and "
                f"{None if self.bias is None else list(self.bias.shape)}; pass the head's own parameters"
            )

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.weight.shape[0]

    def logits(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """rows weight^T + bias for the vocabulary [start, stop), before scale and softcap; [n, stop - start]."""
        logits = products_with(rows, self.weight[start:stop])
        return logits if self.bias is None else logits.add_(self.bias[start:stop].to(logits.dtype))

    def losses_(self, logits: Tensor, labels: Tensor, want_gradient: bool) -> tuple[Tensor, Tensor]:
        """Losses [n] and stats [n, 2] in float64; `logits` [n, V] become their gradients."""
        run = reference_head.head_losses_ if logits.dtype == torch.float64 else _schema.ops.head_losses_
        return run(logits, labels, self._scale, self._softcap, want_gradient)

    def gradient_(self, logits: Tensor, labels: Tensor, stats: Tensor, start: int) -> None:
        """`logits` [n, m] of the vocabulary from `start` on become the gradients that `losses_` has for them."""
        run = reference_head.head_gradient_ if logits.dtype == torch.float64 else _schema.ops.head_gradient_
        run(logits, labels, stats, start, self._scale, self._softcap)

    @property
    def _scale(self) -> float:
        return 1.0 if self.scale is None else float(self.scale)

    @property
    def _softcap(self) -> float:
        return 0.0 if self.softcap is None else float(self.softcap)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    softcap: float | None = None,
    scale: float | None = None,
    watch: Callable[[HeadGradient], None] | None = None,
) -> Tensor:
    """The cross-entropy of each sample's counted tokens, differentiable in `hidden`.

    Shapes: hidden [B, T, d] float32 | float64 | half precision; weight [V, d] and bias [V], hidden's dtype or half
        precision; labels [B, T] int64, `ignore_index` where a token does not count. The result is [B]: float32, or
        float64 if hidden or weight is. Labels are those of the positions themselves; shift them before.
    Units: nats; the mean over the sample's own counted tokens, or their sum.
    Guarantee:
      - the same as cross-entropy of the whole logits within 1e-6 of it (float32) or 1e-12 (float64, torch's own
        operations); half precision is multiplied and added in float32, and only the gradient is rounded to it;
      - never more logits than SCRATCH bytes or SMALLEST_CHUNK tokens of them;
      - a token's loss and gradient come from its own hidden state: NaN or inf stays in its sample.
    Edge cases: a sample without a counted token has loss 0 and gradient 0; so has a sample whose loss gets the gradient
        0, whatever its values; no second derivative.
    watch: called in the backward pass with what a trained head's gradient is made of.
    Raises: ValueError, TypeError for other shapes and dtypes, a label that is no token, a weight that wants an ordinary
        gradient.
    """
    head = Head(weight, bias, softcap, scale)
    _check(hidden, head, labels, reduction, ignore_index)
    if not (torch.is_grad_enabled() and hidden.requires_grad):
        return _FirstPass(hidden, head, labels, reduction, ignore_index, False, False).losses
    return cast(Tensor, _Losses.apply(hidden, head, labels, reduction, ignore_index, watch))


def head_gradient(
    hidden: Tensor, weight: Tensor, labels: Tensor, stats: Tensor, start: int, stop: int, **options: Any
) -> Tensor:
    """The gradients of the tokens' losses to logits [start, stop) of the vocabulary, made again: [B, T, stop - start].

    Shapes: as for `linear_cross_entropy`; stats [B, T, 2] float64, as its first pass leaves them; labels below 0 do not
        count and have gradient 0. options: bias, softcap, scale.
    Guarantee: the same arguments give the same bits; slices of the vocabulary agree with the whole to rounding.
    """
    head = Head(weight, **options)
    rows = hidden.reshape(-1, hidden.shape[-1]).to(_working(hidden, weight))
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        logits = head.logits(rows, start, stop)
        head.gradient_(logits, labels.reshape(-1), stats.reshape(-1, 2), start)
    return logits.view(*hidden.shape[:2], stop - start)


@dataclass(frozen=True)
class HeadGradient:
    """What a trained head's per-sample gradient is made of: R_b = left_b^T hidden_b with left_b [T, V] made in slices.

    Shapes: hidden [B, T, d]; labels [B, T], -1 where a token does not count; stats [B, T, 2]; factors [B], what a
        token's loss weighs in what was differentiated.
    Guarantee: `left` gives the same bits for the same slice each time, so a norm and a sum made of the same slices
        speak of the same R_b. The slices of R_b are its rows [start, stop), so square norms add up over them, and the
        sum over t of left_b is the bias's gradient.
    """

    head: Head
    hidden: Tensor
    labels: Tensor
    stats: Tensor
    factors: Tensor

    def left(self, start: int, stop: int) -> Tensor:
        """[B, T, stop - start], in float32 (float64 for float64): columns of left for the vocabulary [start, stop)."""
        head = self.head
        options = {"bias": head.bias, "softcap": head.softcap, "scale": head.scale}
        gradient = head_gradient(self.hidden, head.weight, self.labels, self.stats, start, stop, **options)
        return gradient.mul_(self.factors[:, None, None])

    def slices(self, scratch: int = 2**26) -> Iterator[tuple[int, int]]:
        """(start, stop) of slices of the vocabulary whose `left` takes at most `scratch` bytes, at least 1 column."""
        column = _working(self.hidden, self.head.weight).itemsize * self.labels.numel()
        columns = max(1, scratch // max(1, column))
        for start in range(0, self.head.vocabulary, columns):
            yield start, min(start + columns, self.head.vocabulary)


class _FirstPass:
    """Losses, and what the backward pass needs: tokens looked at [n], their gradients [n, d], stats [B, T, 2]."""

    def __init__(
        self, hidden: Tensor, head: Head, labels: Tensor, reduction: str, ignore_index: int, grad: bool, stats: bool
    ) -> None:
        counted = labels != ignore_index
        self.sample, self.position = _looked_at(counted)
        self.counts = counted.sum(1) if reduction == "mean" else counted.any(1).long()
        targets = labels.masked_fill(~counted, -1)[self.sample, self.position]
        working = _working(hidden, head.weight)
        n = len(targets)
        self.gradients = hidden.new_empty(n, hidden.shape[2], dtype=working) if grad else None
        losses = hidden.new_zeros(labels.shape, dtype=torch.float64)
        self.stats = hidden.new_zeros(*labels.shape, 2, dtype=torch.float64) if stats else None
        step = chunk_tokens(head, hidden.device.type, working)
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, n, step):
                part = slice(start, start + step)
                at = self.sample[part], self.position[part]
                logits = head.logits(hidden[at].to(working), 0, head.vocabulary)
                losses[at], left = head.losses_(logits, targets[part], grad)
                if self.stats is not None:
                    self.stats[at] = left
                if self.gradients is not None:
                    self.gradients[part] = products_back(logits, head.weight)
                del logits  # or two chunks are alive at once
            self.losses = (losses.sum(1) / self.counts.clamp(min=1)).to(working)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Head, labels: Tensor, reduction: str, ignore_index: int, watch: Any
    ) -> Tensor:
        done = _FirstPass(hidden, head, labels, reduction, ignore_index, True, watch is not None)
        ctx.watch = watch
        ctx.like = hidden.shape, hidden.dtype
        ctx.save_for_backward(done.gradients, done.sample, done.position, done.counts)
        if watch is not None:
            kept = hidden.detach().contiguous()
            ctx.kept = head, kept, labels.masked_fill(labels == ignore_index, -1), done.stats
        return done.losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        gradients, sample, position, counts = ctx.saved_tensors
        factors = grad.to(gradients.dtype) / counts.clamp(min=1)
        each = factors[sample].unsqueeze(1)
        shape, dtype = ctx.like
        result = gradients.new_zeros(shape, dtype=dtype)
        # where, not multiplication: a sample left out of the total may hold NaN, and 0 * NaN is NaN
        result[sample, position] = torch.where(each == 0, 0.0, gradients * each).to(dtype)
        if ctx.watch is not None:
            head, hidden, labels, stats = ctx.kept
            ctx.watch(HeadGradient(head, hidden, labels.masked_fill((factors == 0)[:, None], -1), stats, factors))
        return result, None, None, None, None, None


def chunk_tokens(head: Head, device: str, dtype: torch.dtype) -> int:
    """How many tokens' logits are alive at a time."""
    smallest = SMALLEST_CHUNK if head.weight.dtype == dtype else _WIDENING_CHUNK
    return max(smallest, SCRATCH.get(device, SCRATCH["cpu"]) // (dtype.itemsize * max(1, head.vocabulary)))


def _looked_at(counted: Tensor) -> tuple[Tensor, Tensor]:
    """Sample and position of each token to compute: the counted ones, or on a GPU all, whose number the host knows."""
    if counted.device.type == "cpu":
        sample, position = counted.nonzero(as_tuple=True)
        return sample, position
    grid = torch.arange(counted.numel(), device=counted.device)
    return grid // max(1, counted.shape[1]), grid % max(1, counted.shape[1])


def _working(hidden: Tensor, weight: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (hidden.dtype, weight.dtype) else torch.float32


def _check(hidden: Tensor, head: Head, labels: Tensor, reduction: str, ignore_index: int) -> None:
    op = "linear_cross_entropy"
    weight = head.weight
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{op}: reduction must be mean or sum, got {reduction!r}; add up the losses afterwards")
    if hidden.dim() != 3 or labels.shape != hidden.shape[:2] or hidden.shape[2] != weight.shape[1]:
        raise ValueError(
            f"{op}: hidden must be [B, T, d], labels [B, T] and weight [V, d], got {list(hidden.shape)}, "
            f"{list(labels.shape)} and {list(weight.shape)}; shift and cut them alike before the call"
        )
    if labels.dtype != torch.int64:
        raise TypeError(f"{op}: labels must be int64, got {labels.dtype}; call .long() on them")
    for name, x in (("hidden", hidden), ("weight", weight), ("bias", head.bias)):
        if x is not None and not x.is_floating_point():
            raise TypeError(f"{op}: {name} must be floating point, got {x.dtype}; dequantise it before the call")
        if x is not None and x.device != labels.device:
            raise ValueError(f"{op}: {name} must be on the labels' device {labels.device}, got {x.device}; move it")
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (weight, head.bias)):
        raise ValueError(
            f"{op}: weight and bias must not require a gradient, got one that does: this function gives none; detach "
            "them, and take a trained head's gradient from watch"
        )
    known = (labels == ignore_index) | ((labels >= 0) & (labels < head.vocabulary))
    if known.is_cuda:
        torch._assert_async(known.all())  # told when the device gets there: the host does not wait
    elif not bool(known.all()):
        raise ValueError(
            f"{op}: labels must lie in [0, {head.vocabulary}) or be {ignore_index}, got others; check the tokenizer"
        )

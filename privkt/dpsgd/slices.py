"""A trained head's per-sample gradients in slices of the vocabulary: [B, T, V] is never made.

R_b = left_b^T hidden_b, [V, d], left_b the gradient of sample b's loss to its logits. Rows [start, stop) of R_b need
columns [start, stop) of left_b alone, which are made again from the hidden states for the norm and for the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from privkt import kernels
from privkt.dpsgd.errors import TrainingError
from privkt.kernels.head import HeadGradient

SCRATCH = 2**26  # bytes of left at a time
KERNEL_DTYPES = (torch.float32, torch.bfloat16)


class HeadSlices:
    """What the backward pass brought for one head, however often its losses were asked for.

    take: gives each unit its records behind one another, and zeros for padding.
    Guarantee: norm and sum are made of the same slices, each of the same bits each time: they speak of one R_b, which
        is a function of sample b's tensors alone. Where one slice holds the vocabulary it is made once.
    """

    def __init__(self, take: Callable[[Tensor], Tensor]) -> None:
        self._take = take
        self._gradients: list[HeadGradient] = []
        self._versions: list[tuple[Tensor, int]] = []
        self._right: Tensor | None = None
        self._whole: Tensor | None = None

    def add(self, gradient: HeadGradient) -> None:
        """One more use of the head, whose positions come behind those of the others."""
        self._gradients.append(gradient)
        head = gradient.head
        read = (gradient.hidden, gradient.stats, head.weight, head.bias)
        self._versions += [(x, x._version) for x in read if x is not None]

    @property
    def right(self) -> Tensor:
        """[units, T, d], as the kernels take it."""
        if self._right is None:
            self._right = _along_positions([self._take(x.hidden) for x in self._gradients])
        return self._right

    def tensors(self) -> Iterator[Tensor]:
        """What is read again but the head's own weight, which moves only after its own sum."""
        for gradient in self._gradients:
            read = (gradient.hidden, gradient.stats, gradient.head.bias)
            yield from (x for x in read if x is not None)

    def parts(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, left [units, T, stop - start]) of each slice.

        Raises: TrainingError, if what left is made from was written to since it came.
        """
        if any(x._version != version for x, version in self._versions):
            raise TrainingError(
                "SampleGradients: the head's weight and its input must stay as they are until the microbatch is added, "
                "got one written to; take norms and sums before the optimizer steps"
            )
        vocabulary = self._gradients[0].head.vocabulary
        column = 4 * sum(x.labels.numel() for x in self._gradients)
        columns = max(1, SCRATCH // max(1, column))
        if self._whole is not None:
            yield 0, vocabulary, self._whole
            return
        for start in range(0, vocabulary, columns):
            stop = min(start + columns, vocabulary)
            left = _along_positions([self._take(x.left(start, stop)) for x in self._gradients])
            if stop - start == vocabulary:
                self._whole = left
            yield start, stop, left
            del left  # or two slices are alive at once

    def add_sqnorms(self, mask: Tensor, out: Tensor) -> None:
        """Adds upper bounds of |R_b|^2, [units] float64."""
        for _, _, left in self.parts():
            kernels.product_sqnorms(left, self.right, mask, out=out)

    def sqnorms_tied(self, ids: Tensor, grad: Tensor, mask: Tensor, padding_idx: int | None, *, width: int) -> Tensor:
        """As `privkt.kernels.tied_sqnorms`, for a weight that is an embedding, too.

        The cross term needs those columns of left that the ids look up; they are renamed by their rank in the sample.
        """
        order = ids.sort(dim=1).values
        places = self.right.shape[1]
        touched = self.right.new_zeros(*ids.shape[:1], places, ids.shape[1] + 1, dtype=torch.float32)
        square = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
        for start, stop, left in self.parts():
            kernels.product_sqnorms(left, self.right, mask, out=square)
            here = ((order >= start) & (order < stop)).unsqueeze(1)
            column = (order - start).clamp(0, stop - start - 1).unsqueeze(1).expand(-1, places, -1)
            touched[..., :-1] = torch.where(here, left.gather(2, column), touched[..., :-1])
        ranks = torch.searchsorted(order, ids.contiguous())
        unused = ids.shape[1]  # a column of zeros, which stands for the padding id
        if padding_idx is not None:
            ranks = ranks.masked_fill(ids == padding_idx, unused)
        cross = kernels.tied_cross(ranks, grad, touched, self.right, mask, padding_idx=unused)
        words = kernels.embedding_sqnorms(ids, grad, mask, padding_idx=padding_idx)
        return kernels.tied_sqnorms(words, square, cross, width=width)

    def add_clipped(self, out: Tensor, factors: Tensor, mask: Tensor, **grid: Any) -> None:
        """Adds the sum of float32(factor R_b) to out [V * d]."""
        d = self.right.shape[2]
        for start, stop, left in self.parts():
            kernels.clipped_product_sum(left, self.right, factors, mask, out=out[start * d : stop * d], **grid)

    def add_rows(self, weight: Tensor | None, bias: Tensor | None) -> None:
        """Adds R_b to weight [units, V, d], and the sum of left_b over positions to bias [units, V]."""
        for start, stop, left in self.parts():
            left = left.float()
            if weight is not None:
                weight[:, start:stop].baddbmm_(left.transpose(1, 2), self.right.float())
            if bias is not None:
                bias[:, start:stop] += left.sum(1)


def _along_positions(parts: list[Tensor]) -> Tensor:
    same = len({x.dtype for x in parts}) == 1
    x = parts[0] if len(parts) == 1 else torch.cat(parts if same else [part.float() for part in parts], 1)
    return x if x.dtype in KERNEL_DTYPES else x.float()

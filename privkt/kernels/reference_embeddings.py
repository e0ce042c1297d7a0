"""The truth for embeddings: each sample's rows [V, d] written out, looked-up vectors added step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from privkt.kernels import reference_sums
from privkt.kernels.reference_products import product_rows


def embedding_rows(ids: Tensor, grad: Tensor, counts: Tensor | None, padding_idx: int | None, rows: int) -> Tensor:
    """float32 [batch, rows, d]; zeros for samples that do not count, whose ids and gradients are not used."""
    used = torch.ones_like(ids, dtype=torch.bool) if counts is None else counts[:, None].expand_as(ids)
    if padding_idx is not None:
        used = used & (ids != padding_idx)
    ids = torch.where(used, ids, 0)
    grad = torch.where(used[..., None], grad.float(), 0.0)
    made = grad.new_zeros(grad.shape[0], rows, grad.shape[2])
    sample = torch.arange(ids.shape[0], device=ids.device)
    for step in range(ids.shape[1]):
        made[sample, ids[:, step]] += grad[:, step]
    return made


def embedding_sqnorms(ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None) -> Tensor:
    places = torch.unique(ids, return_inverse=True)[1]
    if padding_idx is not None:  # its place among the ids
        used = ids != padding_idx
        grad = torch.where(used[..., None], grad, 0.0)
    rows = embedding_rows(places, grad, mask, None, max(ids.numel(), 1))
    return rows.double().square().sum((1, 2))


def add_embedding_sqnorms_(
    sqnorms: Tensor, ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None
) -> None:
    sqnorms += embedding_sqnorms(ids, grad, mask, padding_idx)


def add_clipped_embedding_sum_(
    out: Tensor,
    ids: Tensor,
    grad: Tensor,
    factors: Tensor,
    mask: Tensor | None,
    padding_idx: int | None,
    scale: float | None,
) -> None:
    counts = reference_sums.counted(factors, mask)
    rows = embedding_rows(ids, grad, counts, padding_idx, out.shape[0] // grad.shape[2]).flatten(1)
    products = torch.where(counts[:, None], rows * factors[:, None], 0.0)
    if scale is not None:
        reference_sums.add_cells_("clipped_embedding_sum", out, products, scale)
        return
    total = out.clone() if out.dtype == torch.float64 else torch.zeros_like(out, dtype=torch.float64)
    for product in products:  # one by one: the order is part of what is promised
        total += product.double()
    out.copy_(total if out.dtype == torch.float64 else out.double() + total)


def tied_cross(
    ids: Tensor, grad: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, padding_idx: int | None
) -> Tensor:
    crosses = grad.new_zeros(grad.shape[0], dtype=torch.float64)
    counts = torch.ones_like(crosses, dtype=torch.bool) if mask is None else mask
    looked_up = torch.zeros(ids.shape[0], left.shape[2], dtype=torch.bool, device=ids.device)
    looked_up.scatter_(1, torch.where(counts[:, None], ids, 0), True)
    embedding = embedding_rows(ids, grad, mask, padding_idx, left.shape[2]).double()
    if padding_idx is not None and padding_idx < left.shape[2]:
        looked_up[:, padding_idx] = False
    head = product_rows(left, right).double()
    terms = torch.where(looked_up[..., None], embedding * head, 0.0)  # the head's other rows are not looked at
    return torch.where(counts, terms.sum((1, 2)), crosses)

"""The truth for rows that are not stored: R = left^T right by fused multiply-adds in the order of the steps.

A fused multiply-add of float32 is computed here in float64: the product is exact, the sum is rounded to odd, and
rounding that to float32 rounds once (S. Boldo, G. Melquiond, IEEE Trans. Computers 57, 2008).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privkt.kernels import reference_sums

LANES = 16  # sums of a float32 inner product that meet at its end


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """float32(a b + c), rounded once. Shapes: float32, broadcast against one another."""
    product = a.double() * b.double()
    c = c.double().expand(product.shape)
    total = product + c
    other = total - product
    rest = (product - (total - other)) + (c - other)  # exact: Knuth's two-sum
    inexact = (rest != 0) & total.isfinite()
    bits = total.view(torch.int64)
    bits = torch.where(inexact & ((rest < 0) != (total < 0)), bits - 1, bits) | inexact
    return bits.view(torch.float64).float()


def product_rows(left: Tensor, right: Tensor) -> Tensor:
    """The rows themselves. Shapes: left [batch, steps, p], right [batch, steps, d]; result [batch, p, d] float32."""
    rows = torch.zeros(left.shape[0], left.shape[2], right.shape[2], device=left.device)
    for step in range(left.shape[1]):
        rows = fused(left[:, step, :, None].float(), right[:, step, None, :].float(), rows)
    return rows


def _growth(operations: int) -> float:
    rounding = operations * 2.0**-24
    return rounding / (1 - rounding) if rounding < 0.5 else math.inf


def _gram_sqnorms(left: Tensor, right: Tensor) -> Tensor:
    """|left^T right|^2 by inner products, with the terms of csrc/include/privkt/product_bound.h for float32 entries."""
    (_, steps, p), d = left.shape, right.shape[2]
    left, right = left.double(), right.double()
    entries = (left @ left.mT) * (right @ right.mT)
    norms = [x.square().sum(2).sqrt() for x in (left, right)]
    sizes = (norms[0] * norms[1]).sum(1)
    relative = [_growth(-(-width // LANES) + 4) for width in (p, d)]
    absolute = [(width + LANES) * 2.0**-149 for width in (p, d)]
    both = relative[0] + relative[1] + relative[0] * relative[1] + steps**2 * 2.0**-50
    tiny = 2 * (absolute[0] * norms[1].sum(1).square() + absolute[1] * norms[0].sum(1).square())
    tiny += 2 * steps**2 * absolute[0] * absolute[1]
    exact = entries.sum((1, 2)) + both * (1 + 2.0**-30) * sizes.square() + tiny
    norm = exact.clamp(min=0).sqrt() + _growth(steps) * sizes + steps * 2.0**-149 * math.sqrt(p * d)
    fits = (sizes < 2.0**126) & exact.isfinite()
    return torch.where(fits, norm.square() * (1 + (steps + 64) * 2.0**-50), math.inf)


def product_sqnorms(left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> Tensor:
    if gram:
        sqnorms = _gram_sqnorms(left, right)
    else:
        up = 1 + (left.shape[2] * right.shape[2] + 16) * 2.0**-52
        sqnorms = product_rows(left, right).double().square().sum((1, 2)) * up
    return sqnorms if mask is None else torch.where(mask, sqnorms, 0.0)


def add_product_sqnorms_(sqnorms: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> None:
    sqnorms += product_sqnorms(left, right, mask, gram)


def add_clipped_product_sum_(
    out: Tensor, left: Tensor, right: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    counts = reference_sums.counted(factors, mask)
    products = product_rows(left[counts], right[counts]).flatten(1) * factors[counts, None]
    if scale is not None:
        reference_sums.add_cells_("clipped_product_sum", out, products, scale)
    elif out.dtype == torch.float64:
        for row in products:  # one by one: the order is part of what is promised
            out += row.double()
    else:
        out.copy_(out.double() + products.double().sum(0))

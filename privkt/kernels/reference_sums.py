"""What the references of clipped sums share: which samples count, and products as cells of the integer grid."""

from __future__ import annotations

import torch
from torch import Tensor

from privkt.kernels import grid


def counted(factors: Tensor, mask: Tensor | None) -> Tensor:
    """bool [batch]: samples with a factor that is one, inside the mask."""
    counts = (factors > 0) & factors.isfinite()
    return counts if mask is None else counts & mask


def add_cells_(op: str, out: Tensor, products: Tensor, scale: float) -> None:
    """Adds the whole cells of products [batch, width] to out [width] int64."""
    cells = products.double() * scale
    fits = (cells.abs().sum(0) + out.double().abs() <= grid.MOST_CELLS) & cells.isfinite().all(0)
    out += torch.where(fits, cells, 0.0).trunc().to(torch.int64).sum(0)
    grid.need_fit(op, bool(fits.all()))

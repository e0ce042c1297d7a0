"""What the kernels must compute, in torch: slow, readable, and the truth that they are tested against.

Not private: it runs only where PRIVKT_KERNELS=reference asks for it, and results made with it are marked so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from privkt.kernels import grid, reference_sums
from privkt.kernels.reference_discrete import add_discrete_gaussian_ as add_discrete_gaussian_
from privkt.kernels.reference_discrete import discrete_gaussian_ as discrete_gaussian_
from privkt.kernels.reference_embeddings import add_clipped_embedding_sum_ as add_clipped_embedding_sum_
from privkt.kernels.reference_embeddings import add_embedding_sqnorms_ as add_embedding_sqnorms_
from privkt.kernels.reference_embeddings import embedding_sqnorms as embedding_sqnorms
from privkt.kernels.reference_embeddings import tied_cross as tied_cross
from privkt.kernels.reference_head import head_gradient_ as head_gradient_
from privkt.kernels.reference_head import head_losses_ as head_losses_
from privkt.kernels.reference_noise import normals_added
from privkt.kernels.reference_products import add_clipped_product_sum_ as add_clipped_product_sum_
from privkt.kernels.reference_products import add_product_sqnorms_ as add_product_sqnorms_
from privkt.kernels.reference_products import product_sqnorms as product_sqnorms
from privkt.kernels.reference_updates import adam_update_ as adam_update_
from privkt.kernels.reference_updates import sgd_update_ as sgd_update_


def row_sqnorms(rows: Tensor, mask: Tensor | None) -> Tensor:
    sqnorms = rows.double().square().sum(1)
    return sqnorms if mask is None else torch.where(mask, sqnorms, 0.0)


def add_row_sqnorms_(sqnorms: Tensor, rows: Tensor, mask: Tensor | None) -> None:
    sqnorms += row_sqnorms(rows, mask)


def clip_factors(
    sqnorms: Tensor, max_norm: float, width: int, slack: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The bound is derived in csrc/include/privkt/clip_factor.h; these are its steps."""
    finite = sqnorms.isfinite()
    norms = (sqnorms * (1 + (width + 8) * 2.0**-52)).sqrt() * (1 + slack) * (1 + 2.0**-50)
    room = max(max_norm - width**0.5 * 2.0**-149, 0.0)
    wanted = room / (norms * (1 + 2.0**-24)) * (1 - 2.0**-50)
    factors = wanted.float()
    below = torch.nextafter(factors, torch.zeros_like(factors))
    factors = torch.where(factors.double() > wanted, below, factors)
    factors = torch.where(norms <= max_norm, 1.0, factors)
    factors = torch.where(finite, factors, 0.0)
    if mask is not None:
        factors, finite = torch.where(mask, factors, 0.0), finite | ~mask
    return factors, finite


def _products(rows: Tensor, factors: Tensor, mask: Tensor | None) -> Tensor:
    """float32 [batch, width]: the stored clipped rows; zeros for rows that do not count."""
    # where, not multiplication: 0 * NaN is NaN
    return torch.where(reference_sums.counted(factors, mask)[:, None], rows.float() * factors[:, None], 0.0)


def clipped_sum(rows: Tensor, factors: Tensor, mask: Tensor | None) -> Tensor:
    return _products(rows, factors, mask).double().sum(0).float()


def add_clipped_sum_(
    out: Tensor, rows: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    products = _products(rows, factors, mask)
    if scale is None:
        out.copy_(out.double() + products.double().sum(0))
    else:
        reference_sums.add_cells_("clipped_sum", out, products, scale)


def clip_and_sum_(
    out: Tensor, rows: Tensor, max_norm: float, mask: Tensor | None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    factors, finite = clip_factors(row_sqnorms(rows, mask), max_norm, rows.shape[1], 0.0, mask)
    add_clipped_sum_(out, rows, factors, mask, scale)
    return factors, finite


def gaussian_noise_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    out.copy_(noisy_sum(torch.zeros_like(out), sigma, key, step, offset))


def add_gaussian_noise_(x: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    x.copy_(noisy_sum(x, sigma, key, step, offset))


def noisy_sum(total: Tensor, sigma: float, key: Tensor, step: int, offset: int, scale: float | None = None) -> Tensor:
    values = total.detach().double() if scale is None else grid.units_of(total, scale)
    noisy = normals_added(values.cpu().numpy(), sigma, bytes(key.tolist()), step % 2**64, offset % 2**64)
    return torch.from_numpy(noisy).to(total.device)

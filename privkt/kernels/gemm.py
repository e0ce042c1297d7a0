"""Products with a large weight matrix, by the fastest exact float32 routine that torch carries.

On x86 processors that are not Intel's, torch's default BLAS (MKL) uses half of the vector unit; oneDNN, which torch
carries as well, measured 1.6 to 2.5 times as fast there and is on a par elsewhere. Half-precision weights are widened
tile by tile, so that products and sums are float32's.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)
_TILE = 2**22  # elements of a half-precision weight that are widened at a time: 16 MiB


def products_with(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T. Shapes: x [n, k] float32 | float64; weight [m, k], x's dtype or half precision; result [n, m], x's.

    Guarantee: a row of the result depends on its row of x alone, whose value is not mixed with any other's; how it is
    rounded may depend on n. On the processors tried it does not: the routine for n = 1, which rounds otherwise, is
    kept out.
    """
    if weight.dtype == x.dtype:
        return _product(x, weight)
    if _widens_itself(x, weight):
        return torch.mm(x.to(weight.dtype), weight.t(), out_dtype=x.dtype)
    out = x.new_empty(x.shape[0], weight.shape[0])
    for start, stop in _tiles(weight):
        out[:, start:stop] = _product(x, weight[start:stop].to(x.dtype))
    return out


def products_back(g: Tensor, weight: Tensor) -> Tensor:
    """g weight. Shapes: g [n, m] float32 | float64; weight [m, k]; result [n, k]. Otherwise as `products_with`."""
    if weight.dtype == g.dtype:
        return _product(g, weight.t())
    if _widens_itself(g, weight):  # gradients in the weight's precision, as ordinary training has them
        return torch.mm(g.to(weight.dtype), weight, out_dtype=g.dtype)
    out = g.new_zeros(g.shape[0], weight.shape[1])
    for start, stop in _tiles(weight):
        out += _product(g[:, start:stop].contiguous(), weight[start:stop].to(g.dtype).t())
    return out


def _tiles(weight: Tensor) -> list[tuple[int, int]]:
    step = max(1, _TILE // max(1, weight.shape[1]))
    return [(start, min(start + step, weight.shape[0])) for start in range(0, weight.shape[0], step)]


def _widens_itself(x: Tensor, weight: Tensor) -> bool:
    """Whether the device multiplies half-precision matrices into float32 without help."""
    return x.is_cuda and x.dtype == torch.float32 and weight.dtype in _HALF and hasattr(torch.ops.aten.mm, "dtype")


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T for matrices of one dtype."""
    if x.shape[0] == 1:
        return _product(x.expand(2, -1).contiguous(), weight)[:1]
    if x.dtype == torch.float32 and x.device.type == "cpu" and 0 not in (*x.shape, *weight.shape) and _has_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return torch.mm(x, weight.t())


def _has_onednn() -> bool:
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )

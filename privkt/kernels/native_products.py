"""Rows that are not stored, of products, embeddings and tied weights, over the native module; see `native`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privkt.kernels import grid
from privkt.kernels.native import _ELEMENTS, _ELEMENTS_A_THREAD, _at, _split, _workspace, module

_PRODUCTS_A_THREAD = 1 << 23
_TILE_COLUMNS = 96  # whole register tiles of every instruction set, along either side


def _lookups(
    ids: Tensor, places: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None, start: int, stop: int
) -> tuple[int, ...]:
    """How the binding is told of samples start...stop; ids and places are sorted sample by sample, or all together."""
    where = (_at(ids, start), _at(places, start), _at(grad, start), _ELEMENTS[grad.dtype])
    shape = (grad.shape[2], grad.stride(0), grad.stride(1), stop - start, grad.shape[1])
    return *where, *shape, _at(mask, start), -1 if padding_idx is None else padding_idx


def _embedding_sqnorms_into(
    sqnorms: Tensor, ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None, accumulate: bool
) -> None:
    batch, steps, width = grad.shape
    order = torch.sort(ids.contiguous(), dim=1, stable=True)
    space = _workspace("embedding_sqnorms", grad, lambda: module().embedding_workspace(batch, steps))

    def run(start: int, stop: int) -> tuple[Any, ...]:
        piece = _lookups(order.values, order.indices, grad, mask, padding_idx, start, stop)
        return piece, _at(sqnorms, start), accumulate, *map(_at, space)

    _split("embedding_sqnorms", grad.device, batch, _ELEMENTS_A_THREAD // max(steps * width, 1) + 1, run)


def embedding_sqnorms(ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None) -> Tensor:
    sqnorms = grad.new_empty(grad.shape[0], dtype=torch.float64)
    _embedding_sqnorms_into(sqnorms, ids, grad, mask, padding_idx, accumulate=False)
    return sqnorms


def add_embedding_sqnorms_(
    sqnorms: Tensor, ids: Tensor, grad: Tensor, mask: Tensor | None, padding_idx: int | None
) -> None:
    _embedding_sqnorms_into(sqnorms, ids, grad, mask, padding_idx, accumulate=True)


def add_clipped_embedding_sum_(
    out: Tensor,
    ids: Tensor,
    grad: Tensor,
    factors: Tensor,
    mask: Tensor | None,
    padding_idx: int | None,
    scale: float | None,
) -> None:
    batch, _, width = grad.shape
    order = torch.sort(ids.flatten(), stable=True)
    lookups = _lookups(order.values, order.indices, grad, mask, padding_idx, 0, batch)
    into = (out.data_ptr(), _ELEMENTS[out.dtype], 1.0 if scale is None else scale)

    def run(start: int, stop: int) -> tuple[Any, ...]:
        return lookups, _at(factors), start, stop, *into

    grain = _ELEMENTS_A_THREAD // width + 1
    grid.need_fit("clipped_embedding_sum", _split("clipped_embedding_sum", grad.device, ids.numel(), grain, run))


def _sides(left: Tensor, right: Tensor, batch: int, start: int = 0) -> tuple[int, ...]:
    """How the binding is told of both sides, from sample `start` on."""
    sides = ((_at(x, start), _ELEMENTS[x.dtype], x.shape[2], x.stride(0), x.stride(1)) for x in (left, right))
    return *(value for side in sides for value in side), batch, left.shape[1]


def _product_sqnorms_into(
    sqnorms: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, gram: bool, accumulate: bool
) -> None:
    batch, steps, p = left.shape
    d = right.shape[2]
    products = steps * steps * (p + d) // 2 if gram else steps * p * d
    space = _workspace("product_sqnorms", left, lambda: module().product_workspace(batch, steps, d, gram))

    def run(start: int, stop: int) -> tuple[Any, ...]:
        sides = _sides(left, right, stop - start, start)
        return *sides, _at(mask, start), gram, _at(sqnorms, start), accumulate, *map(_at, space)

    _split("product_sqnorms", left.device, batch, _PRODUCTS_A_THREAD // max(products, 1) + 1, run)


def product_sqnorms(left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> Tensor:
    sqnorms = left.new_empty(left.shape[0], dtype=torch.float64)
    _product_sqnorms_into(sqnorms, left, right, mask, gram, accumulate=False)
    return sqnorms


def add_product_sqnorms_(sqnorms: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, gram: bool) -> None:
    _product_sqnorms_into(sqnorms, left, right, mask, gram, accumulate=True)


def add_clipped_product_sum_(
    out: Tensor, left: Tensor, right: Tensor, factors: Tensor, mask: Tensor | None, scale: float | None = None
) -> None:
    (batch, steps, p), d = left.shape, right.shape[2]
    by_rows, cells = p >= d, 1.0 if scale is None else scale

    def run(start: int, stop: int) -> tuple[Any, ...]:
        # a piece is the product of fewer columns of one side, with a place of its own in out
        sides = (left[:, :, start:stop], right) if by_rows else (left, right[:, :, start:stop])
        first = out.data_ptr() + start * (d if by_rows else 1) * out.element_size()
        return *_sides(*sides, batch), _at(mask), _at(factors), first, _ELEMENTS[out.dtype], d, cells

    long, short = max(p, d), min(p, d)
    columns = _PRODUCTS_A_THREAD // max(batch * steps * short, 1)
    grain = (columns // _TILE_COLUMNS + 1) * _TILE_COLUMNS
    grid.need_fit("clipped_product_sum", _split("clipped_product_sum", left.device, long, grain, run))


def tied_cross(
    ids: Tensor, grad: Tensor, left: Tensor, right: Tensor, mask: Tensor | None, padding_idx: int | None
) -> Tensor:
    (batch, steps, width), places = grad.shape, left.shape[1]
    kept = ids if mask is None else torch.where(mask[:, None], ids, 0)  # what does not count may be no id
    order = torch.sort(kept.contiguous(), dim=1, stable=True)
    touched = left.gather(2, order.values[:, None].expand(-1, places, -1)).float()
    crosses = grad.new_empty(batch, dtype=torch.float64)
    space = _workspace("tied_cross", grad, lambda: batch * width)

    def run(start: int, stop: int) -> tuple[Any, ...]:
        piece = _lookups(order.values, order.indices, grad, mask, padding_idx, start, stop)
        return piece, *_sides(touched, right, stop - start, start), _at(crosses, start), *map(_at, space)

    _split("tied_cross", grad.device, batch, _PRODUCTS_A_THREAD // max(steps * places * width, 1) + 1, run)
    return crosses

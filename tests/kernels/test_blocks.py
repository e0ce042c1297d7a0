"""Kernels made of blocks of threads have the CPU's bits: on a GPU, and played on the CPU, threads in either order.

What is played is the source that nvcc compiles (csrc/include/privkt/blocks). Norms of stored rows, of embeddings and by
inner products are added up in an order of their own; they agree to rounding, and stay upper bounds.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from privkt.kernels import (
    adamw_update_,
    add_discrete_gaussian_,
    clip_factors,
    clipped_embedding_sum,
    clipped_product_sum,
    clipped_sum,
    discrete_gaussian_,
    embedding_sqnorms,
    gaussian_noise,
    noisy_sum,
    product_sqnorms,
    row_sqnorms,
    sgd_update_,
    tied_cross,
)
from privkt.kernels.reference_products import product_rows

KEY = bytes(range(1, 33))
SHAPES = [(3, 7, 13, 37), (2, 5, 130, 66), (2, 83, 25, 33), (4, 33, 3, 129), (3, 1, 97, 1), (1, 16, 64, 64)]
OUTS = [(torch.float64, None), (torch.float32, None), (torch.int64, 2.0**20)]
DTYPES = [torch.float32, torch.bfloat16]
There = Callable[..., Any]


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def batch_of(shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Sides with the steps first, factors and a mask; a sample outside it, and one of factor 0, are NaN."""
    batch, steps, p, d = shape
    left, right = normal(steps, batch, p + 3, dtype=dtype), normal(steps, batch, d, seed=1)
    factors, mask = torch.linspace(0.3, 1, batch), torch.ones(batch, dtype=torch.bool)
    if batch > 2:
        factors[1], mask[2] = 0.0, False
        left[:, 1], right[:, 2] = torch.nan, torch.nan
    return left, right, factors, mask


def view(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """[batch, steps, width] with other strides than a tensor of its own has."""
    return left.transpose(0, 1)[..., 2:-1], right.transpose(0, 1)


@pytest.mark.parametrize(("out", "scale"), OUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_product_sums(there: There, here: There, shape, dtype: torch.dtype, out: torch.dtype, scale) -> None:
    def total(left: Tensor, right: Tensor, factors: Tensor, mask: Tensor) -> Tensor:
        started = torch.arange(shape[2] * shape[3], device=left.device).to(out)
        return clipped_product_sum(*view(left, right), factors, mask, out=started, scale=scale)

    assert torch.equal(there(total, *batch_of(shape, dtype)), here(total, *batch_of(shape, dtype)))


@pytest.mark.parametrize(("out", "scale"), OUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "width"), [(0, 7), (1, 1), (5, 1031), (67, 301)])
def test_stored_rows(there: There, here: There, batch: int, width: int, dtype: torch.dtype, out, scale) -> None:
    def clipped(rows: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        rows = rows[:, 1:-2]
        norms = row_sqnorms(rows, mask)
        factors, finite = clip_factors((norms * 2**20).round() / 2**20, 1.0, width=width, mask=mask)
        started = torch.arange(width, device=rows.device).to(out)
        clipped_sum(rows, factors, mask, out=started, scale=scale)
        return norms, factors, finite, started, clipped_sum(rows, factors)

    rows, mask = normal(batch, width + 3, dtype=dtype), torch.arange(batch) % 5 != 3
    rows[batch // 2 :][:1, width // 2 + 1] = torch.nan
    found, wanted = there(clipped, rows, mask), here(clipped, rows, mask)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-13, atol=0, equal_nan=True)
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["tiles", "gram"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_product_norms(there: There, here: There, shape, dtype: torch.dtype, method) -> None:
    def norms(left: Tensor, right: Tensor, factors: Tensor, mask: Tensor) -> Tensor:
        out = torch.ones(left.shape[1], dtype=torch.float64, device=left.device)
        return product_sqnorms(*view(left, right), mask, method=method, out=out)

    args = batch_of(shape, dtype)
    found, wanted = there(norms, *args), here(norms, *args)
    if method == "tiles":
        assert torch.equal(found.nan_to_num(-1), wanted.nan_to_num(-1))
        return
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0, equal_nan=True)
    exact = 1 + product_rows(*view(*args[:2])).double().square().sum((1, 2))
    assert not (found < exact)[args[3]].any()


def test_a_sample_has_the_same_norm_whoever_is_beside_it(there: There) -> None:
    left, right = normal(5, 70, 11), normal(5, 70, 9, seed=1)
    for method in ("tiles", "gram"):

        def norms(left: Tensor, right: Tensor, method=method) -> Tensor:
            return product_sqnorms(left, right, method=method)

        together = there(norms, left, right)
        assert torch.equal(together, torch.cat([there(norms, left[i : i + 1], right[i : i + 1]) for i in range(5)]))


def lookups_of(batch: int, steps: int, width: int, dtype: torch.dtype, words: int) -> tuple[Tensor, ...]:
    ids = torch.randint(0, words, (batch, steps), generator=torch.Generator().manual_seed(3))
    grad, factors, mask = normal(steps, batch, width, dtype=dtype), torch.linspace(0.3, 1, batch), torch.ones(batch) > 0
    if batch > 2:
        factors[1], mask[2] = 0.0, False
        grad[:, 1:3] = torch.nan
        ids[2] = 2**40
    return ids, grad, factors, mask


LOOKUPS = [(3, 7, 5, 4), (4, 70, 131, 9), (1, 1, 1, 1), (5, 33, 260, 1000)]


@pytest.mark.parametrize(("out", "scale"), OUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "steps", "width", "words"), LOOKUPS)
def test_embedding_sums(there: There, here: There, batch, steps, width, words, dtype, out, scale) -> None:
    def total(ids: Tensor, grad: Tensor, factors: Tensor, mask: Tensor) -> Tensor:
        started = torch.arange(words * width, device=ids.device).to(out)
        grad = grad.transpose(0, 1)
        return clipped_embedding_sum(ids, grad, factors, mask, padding_idx=2, out=started, scale=scale)

    args = lookups_of(batch, steps, width, dtype, words)
    assert torch.equal(there(total, *args), here(total, *args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "steps", "width", "words"), LOOKUPS)
def test_embedding_norms(there: There, here: There, batch, steps, width, words, dtype) -> None:
    def norms(ids: Tensor, grad: Tensor, factors: Tensor, mask: Tensor) -> Tensor:
        out = torch.ones(batch, dtype=torch.float64, device=ids.device)
        return embedding_sqnorms(ids, grad.transpose(0, 1), mask, padding_idx=2, out=out)

    args = lookups_of(batch, steps, width, dtype, words)
    torch.testing.assert_close(there(norms, *args), here(norms, *args), rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "steps", "width", "words"), LOOKUPS)
def test_tied_crosses(there: There, here: There, batch, steps, width, words, dtype) -> None:
    def crosses(ids: Tensor, grad: Tensor, mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return tied_cross(ids, grad.transpose(0, 1), left, right.transpose(0, 1), mask, padding_idx=2)

    ids, grad, _, mask = lookups_of(batch, steps, width, dtype, words)
    args = (ids, grad, mask, normal(batch, 19, words, dtype=dtype, seed=4), normal(19, batch, width, seed=5))
    found, wanted = there(crosses, *args), here(crosses, *args)
    assert torch.equal(found.nan_to_num(-1), wanted.nan_to_num(-1))
    assert found[mask].isfinite().any()


@pytest.mark.parametrize(("step", "offset"), [(0, 0), (2**40, 13), (2**64 - 1, 2**30 + 5)])
def test_noise(there: There, here: There, step: int, offset: int) -> None:
    def noisy(total: Tensor) -> tuple[Tensor, ...]:
        fresh = gaussian_noise(torch.empty(len(total), device=total.device), 0.83, KEY, step, offset)
        return fresh, noisy_sum(total, 0.3, KEY, step, offset), noisy_sum(total, 0.0, KEY, step, offset)

    total = torch.linspace(-5, 5, 100_003, dtype=torch.float64)
    total[7], total[70_000] = torch.nan, torch.inf
    for found, wanted in zip(there(noisy, total), here(noisy, total), strict=True):
        assert torch.equal(found.nan_to_num(-1), wanted.nan_to_num(-1))


@pytest.mark.parametrize("sigma", [2.0**-6, 0.75, 1000.0, 2.0**40])
def test_discrete_noise(there: There, here: There, sigma: float) -> None:
    def drawn(total: Tensor) -> tuple[Tensor, Tensor]:
        fresh = discrete_gaussian_(torch.empty_like(total), sigma, KEY, 5, 11)
        return fresh, add_discrete_gaussian_(total.clone(), sigma, KEY, 2**64 - 1, 2**40)

    for found, wanted in zip(there(drawn, torch.arange(2003)), here(drawn, torch.arange(2003)), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 13])
@pytest.mark.parametrize(("total", "scale"), OUTS)
@pytest.mark.parametrize("sigma", [0.0, 1.7])
def test_updates(there: There, here: There, total: torch.dtype, scale, offset: int, dtype, sigma: float) -> None:
    def stepped(total: Tensor) -> tuple[Tensor, ...]:
        param, *states = (normal(len(total), seed=s).to(total.device) for s in range(4))
        param, variance = param.to(dtype), states[2].square()
        noise: dict[str, Any] = {"divisor": 6.4, "scale": scale}
        for first in (True, False):
            how: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": first}
            sgd_update_(param, states[0], total, sigma, KEY, 3, offset, lr=0.1, first=first, **how, **noise)
        sgd_update_(param, None, total, sigma, KEY, 4, offset, lr=0.1, **noise)
        sgd_update_(param, states[0], total, sigma, KEY, 5, offset, lr=0.1, momentum=0.5, dampening=0.1, **noise)
        for bias, decoupled in ((0.0, True), (0.01, False)):
            adam: dict[str, Any] = {"weight_decay": 0.1, "noise_bias": bias, "decoupled": decoupled}
            adamw_update_(param, states[1], variance, total, sigma, KEY, 6, offset, lr=0.1, count=2, **adam, **noise)
        return param, states[0], states[1], variance

    start = (normal(4099, seed=9).double() * (scale or 1.0)).to(total)
    for found, wanted in zip(there(stepped, start), here(stepped, start), strict=True):
        assert torch.equal(found, wanted)


def test_nothing_is_left_as_it_is(there: There) -> None:
    def all_of_them(out: Tensor) -> Tensor:
        none, no_steps, ones = out.new_empty(0, 3, 2).float(), out.new_empty(2, 0, 2).float(), out.new_ones(2).float()
        ids = torch.empty(2, 0, dtype=torch.int64, device=out.device)
        for sides, factors in ((none, ones[:0]), (no_steps, ones)):
            clipped_product_sum(sides, sides, factors, out=out)
            for method in ("gram", "tiles"):
                assert product_sqnorms(sides, sides, method=method).tolist() == [0.0] * len(factors)
        clipped_embedding_sum(ids, no_steps, ones, out=out)
        assert embedding_sqnorms(ids, no_steps).tolist() == [0.0, 0.0]
        assert tied_cross(ids, no_steps, no_steps, no_steps).tolist() == [0.0, 0.0]
        discrete_gaussian_(ids[0], 1.0, KEY, 0)
        sgd_update_(ones[:0], None, ones[:0], 1.0, KEY, 0, divisor=1.0, lr=1.0)
        return out

    assert torch.equal(there(all_of_them, torch.arange(4.0)), torch.arange(4.0))


def test_what_does_not_fit_shows_without_waiting(there: There) -> None:
    def sums(grad: Tensor) -> tuple[Tensor, ...]:
        zeros = torch.zeros(3, dtype=torch.int64, device=grad.device)
        ones, ids = grad.new_ones(1), zeros[:1, None]
        weight = grad.new_zeros(3)
        sgd_update_(weight, None, zeros + 2**53 + 1, 0.5, KEY, 0, divisor=1.0, lr=1.0, scale=1.0)
        products, rows = zeros.clone(), zeros.clone()
        clipped_product_sum(grad, grad.new_ones(1, 1, 1), ones, out=products, scale=2.0)
        clipped_sum(grad[0], ones, out=rows, scale=2.0)
        return rows, products, clipped_embedding_sum(ids, grad, ones, out=zeros.clone(), scale=2.0), weight

    *totals, weight = there(sums, torch.tensor([[[1e30, torch.nan, 2.0]]]))
    assert all(total.tolist() == [-(2**63), -(2**63), 4] for total in totals)
    assert weight.isnan().all()

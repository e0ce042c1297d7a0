"""A tied weight's norm: the cross term against dense rows, and bounds that hold where both gradients nearly cancel."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from privkt.kernels import (
    clip_factors,
    clipped_embedding_sum,
    clipped_product_sum,
    embedding_sqnorms,
    grid_scale,
    native_products,
    product_sqnorms,
    tied_cross,
    tied_grid_norm,
    tied_sqnorms,
)

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
Tied = tuple[Tensor, Tensor, Tensor, Tensor]  # ids, grad, left, right


@st.composite
def tied(draw: st.DrawFn) -> Tied:
    batch, steps, places = draw(st.integers(1, 2)), draw(st.integers(0, 15)), draw(st.integers(0, 5))
    rows, width = draw(st.integers(1, 9)), draw(st.sampled_from([1, 5, 33]))
    elements = st.floats(-4, 4, width=32) | st.floats(-(2.0**40), 2.0**40, width=32)
    ids = draw(hnp.arrays(np.int64, (batch, steps), elements=st.integers(0, rows - 1)))
    shapes = ((batch, steps, width), (batch, places, rows), (batch, places, width))
    made = [draw(hnp.arrays(np.float32, shape, elements=elements)) for shape in shapes]
    return (torch.from_numpy(ids), *map(torch.from_numpy, made))  # type: ignore[return-value]


def stored(case: Tied, padding: int | None = None) -> tuple[Tensor, Tensor]:
    """E and H, [batch, V d] float32, one sample at a time through the sums themselves."""
    ids, grad, left, right = case
    size, one = left.shape[2] * grad.shape[2], torch.ones(1)
    embedding, head = torch.zeros(len(ids), size), torch.zeros(len(ids), size)
    for b in range(len(ids)):
        part = slice(b, b + 1)
        clipped_embedding_sum(ids[part], grad[part], one, padding_idx=padding, out=embedding[b])
        clipped_product_sum(left[part], right[part], one, out=head[b])
    return embedding, head


def bounds(case: Tied, padding: int | None = None) -> Tensor:
    ids, grad, left, right = case
    cross = tied_cross(ids, grad, left, right, padding_idx=padding)
    norms = embedding_sqnorms(ids, grad, padding_idx=padding), product_sqnorms(left, right, method="tiles")
    return tied_sqnorms(*norms, cross, width=left.shape[2] * grad.shape[2])


def square(values: list[Fraction]) -> Fraction:
    return sum((v * v for v in values), Fraction(0))


@settings(SHARED, max_examples=60)
@given(tied(), st.none() | st.integers(0, 3))
def test_the_cross_term_is_that_of_the_stored_rows(case: Tied, padding: int | None) -> None:
    embedding, head = stored(case, padding)
    got = tied_cross(*case, padding_idx=padding)
    for value, e, h in zip(got.tolist(), embedding.double(), head.double(), strict=True):
        assert abs(value - math.fsum((e * h).tolist())) <= 1e-12 * float(e.norm() * h.norm())


def test_the_cross_term_is_the_formula_up_to_float32() -> None:
    ids, grad, left, right = random_tied()
    dots = torch.einsum("btd,bsd->bts", grad.double(), right.double())
    picked = left.double().gather(2, ids[:, None].expand(-1, left.shape[1], -1))  # [batch, places, steps]
    expected = torch.einsum("bts,bst->b", dots, picked)
    sizes = embedding_sqnorms(ids, grad).sqrt() * product_sqnorms(left, right).sqrt()
    assert ((tied_cross(ids, grad, left, right) - expected).abs() <= 1e-6 * sizes).all()


def cancelling(case: Tied, sign: float, noise: float) -> Tied:
    """A head whose rows are about `sign` times the embedding's: one place for each step, one row of left each."""
    ids, grad, left, _ = case
    head = torch.zeros(*ids.shape, left.shape[2])
    head.scatter_(2, ids[..., None], sign)
    return ids, grad, head, grad * (1 + noise * torch.linspace(-1, 1, grad.shape[2]))


@settings(SHARED, max_examples=100)
@given(tied(), st.sampled_from([None, 1.0, -1.0]), st.sampled_from([0, 2.0**-22, 2.0**-12]), st.floats(-40, 3))
def test_the_stored_sum_is_never_longer_than_the_clipping_norm(
    case: Tied, sign: float | None, noise: float, size: float
) -> None:
    case = case if sign is None else cancelling(case, sign, noise)
    embedding, head = stored(case)
    sqnorms = bounds(case)
    max_norm = max(float(sqnorms.max()) ** 0.5, 2.0**-40) * 2.0**size
    factors = clip_factors(sqnorms, max_norm, width=embedding.shape[1]).factors
    for e, h, factor, bound in zip(embedding, head, factors, sqnorms.tolist(), strict=True):
        plain = [Fraction(a) + Fraction(b) for a, b in zip(e.tolist(), h.tolist(), strict=True)]
        assert square(plain) <= Fraction(bound)
        pairs = zip((factor * e).tolist(), (factor * h).tolist(), strict=True)
        assert square([Fraction(a) + Fraction(b) for a, b in pairs]) <= Fraction(max_norm) ** 2


@settings(SHARED, max_examples=60)
@given(tied(), st.sampled_from([None, 1.0, -1.0]), st.sampled_from([2.0**-22, 2.0**-3]))
def test_cells_of_both_are_never_longer_than_the_clipping_norm(case: Tied, sign: float | None, noise: float) -> None:
    ids, grad, left, right = case = case if sign is None else cancelling(case, sign, noise)
    size = left.shape[2] * grad.shape[2]
    scale = grid_scale(1.0, 2**32)
    max_norm = tied_grid_norm(1.0, scale, coordinates=min(ids.shape[1], left.shape[2]) * grad.shape[2])
    factors = clip_factors(bounds(case), max_norm, width=size).factors
    for b in range(len(ids)):
        part, out = slice(b, b + 1), torch.zeros(size, dtype=torch.int64)
        clipped_embedding_sum(ids[part], grad[part], factors[part], out=out, scale=scale)
        clipped_product_sum(left[part], right[part], factors[part], out=out, scale=scale)
        assert sum(c * c for c in out.tolist()) <= int(scale) ** 2


def test_rounding_does_not_shrink_where_both_cancel() -> None:
    """E + H is 16 steps of float32 in each of many samples; rounding f E and f H may add up to one step more."""
    grad = 1 + torch.rand(4001, 1, 1, generator=torch.Generator().manual_seed(0)) / 3
    case = torch.zeros(4001, 1, dtype=torch.int64), grad, -torch.ones(4001, 1, 1), grad + 2.0**-19
    embedding, head = stored(case)
    max_norm = 0.7 * 2.0**-19

    def longest(factors: Tensor) -> float:
        pairs = (factors[:, None] * x for x in (embedding, head))
        return float(sum(x.double() for x in pairs).abs().max())

    careless = clip_factors((embedding.double() + head.double()).square()[:, 0], max_norm, width=1).factors
    assert longest(careless) > 1.02 * max_norm  # what the norm of E + H alone would allow
    factors = clip_factors(bounds(case), max_norm, width=1).factors
    assert 0.9 * max_norm < longest(factors) <= max_norm


def random_tied(dtype: torch.dtype = torch.float32) -> Tied:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40, (3, 50), generator=generator)
    shapes = ((3, 50, 67), (3, 21, 40), (3, 21, 67))
    return (ids, *(torch.randn(shape, generator=generator).to(dtype) for shape in shapes))  # type: ignore[return-value]


def test_what_does_not_count_is_not_read() -> None:
    ids, grad, left, right = random_tied()
    mask = torch.tensor([True, False, True])
    clean = tied_cross(ids, grad, left, right, mask, padding_idx=7)
    for x in (grad, left, right):
        x[1] = torch.nan
    ids[1] = 10**6
    grad[ids == 7] = torch.nan
    left[:, :, 7] = torch.inf
    assert torch.equal(tied_cross(ids, grad, left, right, mask, padding_idx=7), clean)
    assert clean[1] == 0


def test_bfloat16_and_odd_strides() -> None:
    case = random_tied(torch.bfloat16)
    plain = tied_cross(case[0], *(x.float() for x in case[1:]))
    swapped = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in case]
    assert torch.equal(tied_cross(*swapped), plain)


def test_the_number_of_threads_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    case, before = random_tied(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = tied_cross(*case)
        torch.set_num_threads(3)
        monkeypatch.setattr(native_products, "_PRODUCTS_A_THREAD", 1)
        assert torch.equal(tied_cross(*case), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_what_is_not_finite_stays_so(broken: float) -> None:
    fine, bad = torch.tensor([2.0], dtype=torch.float64), torch.tensor([broken], dtype=torch.float64)
    for case in ((bad, fine, fine), (fine, bad, fine), (bad, bad, -bad), (fine, fine, bad)):
        assert not tied_sqnorms(*case, width=4).isfinite().any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda ids, grad, left, right: tied_cross(ids, grad, left[:2], right[:2]),
            "tied_cross: left must have the batch of ids, 3, got 2; pass two uses of one weight",
        ),
        (
            lambda ids, grad, left, right: tied_cross(ids, grad, left, right[..., :5]),
            "tied_cross: right must have the width of grad, 67, got 5; pass two uses of one weight",
        ),
        (
            lambda ids, grad, left, right: tied_cross(ids, grad, left[..., :30], right),
            "tied_cross: ids must lie in [0, 30), got one outside; pass ids and rows of one embedding",
        ),
        (
            lambda *_: tied_grid_norm(1.0, 2.0**20, coordinates=2**40),
            "tied_grid_norm: scale must leave more than 1048576 cells to max_norm, got 1048576; "
            "use grid_scale(max_norm, rows)",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        call(*random_tied())
    assert str(caught.value) == message

"""Clipped sums against exact arithmetic, with the bound that the docstring states."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privkt.kernels import clip_and_sum, clip_factors, clipped_sum, row_sqnorms, sum_slack

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

ELEMENTS = st.floats(-8, 8, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def clipped_rows(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (draw(st.integers(0, 6)), draw(st.sampled_from([1, 2, 17, 33])))
    x = torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=ELEMENTS)))
    return x, clip_factors(row_sqnorms(x), draw(st.floats(1e-6, 1e6)), width=shape[1]).factors


def products(x: torch.Tensor, factors: torch.Tensor) -> list[list[Fraction]]:
    """The stored clipped rows, by columns."""
    stored = (x * factors[:, None]).T.tolist()
    return [[Fraction(v) for v in column] for column in stored]


@settings(SHARED, max_examples=120)
@given(clipped_rows())
def test_the_sum_is_within_its_proven_bound(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, factors = case
    batch = x.shape[0]
    for got, column in zip(clipped_sum(x, factors).tolist(), products(x, factors), strict=False):
        size = sum((abs(p) for p in column), Fraction(0))
        bound = (batch * size / 2**53 + abs(Fraction(got)) / 2**24) * (1 + Fraction(1, 2**20))
        assert abs(Fraction(got) - sum(column, Fraction(0))) <= bound


@settings(SHARED, max_examples=60)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_one_row_moves_the_sum_by_the_clipping_norm_and_the_slack(data: st.DataObject, dtype: torch.dtype) -> None:
    max_norm, width = 0.5, 5
    elements = st.floats(-2, 2, width=32)
    calls = [data.draw(hnp.arrays(np.float32, (3, width), elements=elements)) for _ in range(3)]

    def total(keep: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(width, dtype=dtype)
        for i, x in enumerate(calls):
            clip_and_sum(torch.from_numpy(x), max_norm, keep if i == 1 else None, out=out)
        return out

    with_row, without = total(torch.tensor([True] * 3)), total(torch.tensor([True, False, True]))
    gap = [Fraction(a) - Fraction(b) for a, b in zip(with_row.tolist(), without.tolist(), strict=True)]
    limit = Fraction(max_norm) * (1 + Fraction(sum_slack(9, 3, dtype)))
    assert sum(g * g for g in gap) <= limit * limit


@settings(SHARED, max_examples=40)
@given(clipped_rows(), st.integers(0, 33))
def test_chunks_of_the_width_give_the_whole(case: tuple[torch.Tensor, torch.Tensor], cut: int) -> None:
    x, factors = case
    out = torch.zeros(x.shape[1])
    for part in (slice(0, cut), slice(cut, None)):
        clipped_sum(x[:, part], factors, out=out[part])
    assert torch.equal(out, clipped_sum(x, factors))


def test_nothing_of_a_removed_row_reaches_the_sum() -> None:
    x = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [torch.inf, -torch.inf], [5.0, 5.0]])
    factors = torch.tensor([0.5, 0.0, 0.0, 1.0])
    mask = torch.tensor([True, True, True, False])
    assert clipped_sum(x, factors, mask).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_factor_removes_the_row(factor: float) -> None:
    assert clipped_sum(torch.ones(1, 3), torch.tensor([factor])).tolist() == [0.0, 0.0, 0.0]


def test_cancellation_that_float32_would_lose() -> None:
    x = torch.tensor([[2.0**30], [1.0], [-(2.0**30)]])
    assert clipped_sum(x, torch.ones(3)).tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_accumulate_over_microbatches(dtype: torch.dtype) -> None:
    out = torch.full((3,), 10.0, dtype=dtype)
    assert clipped_sum(torch.ones(2, 3), torch.ones(2), out=out) is out
    assert out.tolist() == [12.0, 12.0, 12.0]


def test_bfloat16_rows_are_added_in_full_precision() -> None:
    x = torch.tensor([[256.0], [1.0]], dtype=torch.bfloat16)  # 257 is no bfloat16
    assert clipped_sum(x, torch.ones(2)).tolist() == [257.0]


def test_clip_and_sum_is_its_three_parts() -> None:
    x = torch.randn(7, 101, generator=torch.Generator().manual_seed(0))
    x[3, 50] = torch.nan
    mask = torch.tensor([True, True, False, True, True, True, True])
    out = torch.zeros(101)
    factors, finite = clip_and_sum(x, 1.0, mask, out=out)
    assert finite.tolist() == [True, True, True, False, True, True, True]
    assert factors[2] == factors[3] == 0
    assert torch.equal(out, clipped_sum(x, factors, mask))


def test_empty_batches_give_zeros() -> None:
    assert clipped_sum(torch.empty(0, 3), torch.empty(0)).tolist() == [0.0, 0.0, 0.0]
    assert clipped_sum(torch.empty(2, 0), torch.ones(2)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(3)),
            "clipped_sum: factors must have shape [2], got [3]; reshape it before the call",
        ),
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(2), out=torch.zeros(4)),
            "clipped_sum: out must have shape [3], got [4]; reshape it before the call",
        ),
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(2), out=torch.zeros(3, dtype=torch.bfloat16)),
            "clipped_sum: out must be float32 or float64 or int64, got bfloat16; convert it before the call",
        ),
        (
            lambda: clip_and_sum(torch.ones(2, 3), -1.0, out=torch.zeros(3)),
            "clip_and_sum: max_norm must be positive and finite, got -1.0; choose the clipping norm C",
        ),
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(2), out=torch.zeros(6)[::2]),
            "clipped_sum: out must be contiguous, got stride 2; call .contiguous() on it",
        ),
        (
            lambda: sum_slack(3, 1, torch.bfloat16),
            "sum_slack: dtype must be float32, float64 or int64, got torch.bfloat16; pass the buffer's dtype",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message

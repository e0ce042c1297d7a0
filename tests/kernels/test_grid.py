"""The integer grid against exact arithmetic: truncated, free of order, never longer than the clipping norm."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privkt.kernels import (
    clip_and_sum,
    clip_factors,
    clipped_sum,
    grid_scale,
    native,
    noisy_sum,
    row_sqnorms,
    sum_slack,
)

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
KEY = bytes(range(32))


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, float, float]:
    shape = (draw(st.integers(0, 7)), draw(st.sampled_from([1, 3, 17, 40])))
    elements = st.floats(-2, 2, width=32) | st.floats(-(2.0**100), 2.0**100, width=32)
    x = torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=elements)))
    max_norm = draw(st.floats(1e-6, 1e6))
    return x, max_norm, grid_scale(max_norm, draw(st.sampled_from([8, 1000, 2**32])))  # rows of all sums, one more too


def clipped(x: torch.Tensor, max_norm: float) -> torch.Tensor:
    """The stored clipped rows."""
    return x * clip_factors(row_sqnorms(x), max_norm, width=x.shape[1]).factors[:, None]


def cells(stored: torch.Tensor, scale: float) -> list[list[int]]:
    return [[math.trunc(Fraction(v) * Fraction(scale)) for v in row] for row in stored.tolist()]


def summed(x: torch.Tensor, max_norm: float, scale: float, out: torch.Tensor | None = None) -> torch.Tensor:
    out = torch.zeros(x.shape[1], dtype=torch.int64) if out is None else out
    clip_and_sum(x, max_norm, out=out, scale=scale)
    return out


@settings(SHARED, max_examples=60)
@given(batches())
def test_the_sum_is_that_of_the_truncated_cells(case: tuple[torch.Tensor, float, float]) -> None:
    x, max_norm, scale = case
    exact = [sum(column) for column in zip(*cells(clipped(x, max_norm), scale), strict=True)] or [0] * x.shape[1]
    assert summed(x, max_norm, scale).tolist() == exact


@settings(SHARED, max_examples=60)
@given(batches())
def test_one_row_is_never_longer_than_the_clipping_norm(case: tuple[torch.Tensor, float, float]) -> None:
    x, max_norm, scale = case
    limit = Fraction(max_norm) * Fraction(scale)
    for row in x:
        alone = summed(row[None], max_norm, scale).tolist()
        assert sum(c * c for c in alone) <= limit * limit
        with_it = summed(row[None], max_norm, scale, out=summed(x, max_norm, scale))
        assert (with_it - summed(x, max_norm, scale)).tolist() == alone


@settings(SHARED, max_examples=60)
@given(batches(), st.data())
def test_every_split_and_order_gives_the_same_integers(
    case: tuple[torch.Tensor, float, float], data: st.DataObject
) -> None:
    x, max_norm, scale = case
    order = data.draw(st.permutations(range(len(x))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    column = data.draw(st.integers(0, x.shape[1]))
    factors = clip_factors(row_sqnorms(x), max_norm, width=x.shape[1]).factors
    out = torch.zeros(x.shape[1], dtype=torch.int64)
    for first, last in zip([0, *cuts], [*cuts, len(x)], strict=True):
        part = torch.tensor(order[first:last], dtype=torch.int64)
        for width in (slice(column, None), slice(0, column)):
            clipped_sum(x[part][:, width], factors[part], out=out[width], scale=scale)
    assert torch.equal(out, summed(x, max_norm, scale))


@settings(SHARED, max_examples=200)
@given(st.floats(2.0**-126, 2.0**127), st.integers(0, 2**32))
def test_the_scale_is_the_finest_that_cannot_overflow(max_norm: float, rows: int) -> None:
    scale = grid_scale(max_norm, rows)
    assert math.frexp(scale)[0] == 0.5
    assert max_norm * scale >= 2**20
    size = Fraction(max_norm) * max(rows, 1) * Fraction(scale)
    assert size < 2**53 <= 2 * size


def test_cells_are_truncated_toward_zero_and_not_to_nearest() -> None:
    x = torch.tensor([[1.5, -1.5, 0.75, -0.75, 2.0, -0.0]]) / 2**40
    out = torch.full((6,), 10, dtype=torch.int64)
    assert clipped_sum(x, torch.ones(1), out=out, scale=2.0**40) is out
    assert out.tolist() == [11, 9, 10, 10, 12, 10]


@settings(SHARED, max_examples=60)
@given(hnp.arrays(np.float32, 64, elements=st.floats(-1, 1, width=32)), st.sampled_from([0, 1, 21, 31, 32, 33, 51, 53]))
def test_integers_of_every_size_arrive(values: np.ndarray, bits: int) -> None:
    x = torch.from_numpy(values)[None]
    out = torch.zeros(64, dtype=torch.int64)
    clipped_sum(x, torch.ones(1), out=out, scale=2.0**bits)
    assert out.tolist() == cells(x, 2.0**bits)[0]


def test_bfloat16_rows_have_their_cells_too() -> None:
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(summed(x, 1.0, 2.0**30), summed(x.float(), 1.0, 2.0**30))


def test_removed_rows_are_not_read() -> None:
    x = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [torch.inf, 1.0], [5.0, torch.nan]])
    mask = torch.tensor([True, True, True, False])
    out = torch.zeros(2, dtype=torch.int64)
    factors, finite = clip_and_sum(x, 10.0, mask, out=out, scale=2.0**20)
    assert (finite.tolist(), factors.tolist()) == ([True, False, False, True], [1.0, 0.0, 0.0, 0.0])
    assert out.tolist() == [2**20, 2**21]


@pytest.mark.parametrize("implementation", ["native", "reference"], indirect=True)  # a GPU is not waited for
def test_a_sum_that_would_overflow_is_refused(implementation: str) -> None:
    row, one = torch.tensor([[1.0, 2.0**-52]]), torch.ones(1)
    out = torch.zeros(2, dtype=torch.int64)
    clipped_sum(row, one, out=out, scale=2.0**53)
    assert out.tolist() == [2**53, 2]
    for x in (row, -2 * row, torch.tensor([[torch.nan, 0.0]])):  # a NaN with a factor breaks the rules too
        with pytest.raises(OverflowError) as caught:
            clipped_sum(x, one, out=out.clone(), scale=2.0**53)
        assert str(caught.value) == (
            "clipped_sum: a sum must stay within 2^53 cells, got a coordinate beyond; drop this sum and start again "
            "with the scale of grid_scale(max_norm, rows), rows being all of the batch, and factors of clip_factors"
        )
    with pytest.raises(OverflowError):
        clipped_sum(torch.cat([row, -row]), torch.ones(2), out=torch.zeros(2, dtype=torch.int64), scale=2.0**53)


@pytest.mark.parametrize("coordinate", [2**53 + 1, -(2**53) - 1, -(2**63)])
def test_noise_on_an_overflowed_total_is_refused(coordinate: int) -> None:
    with pytest.raises(OverflowError, match="noisy_sum: total must stay within 2\\^53 cells"):
        noisy_sum(torch.tensor([0, coordinate]), 1.0, KEY, 0, scale=2.0**30)


def test_noise_takes_the_total_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_GRID_CHUNK", 16)
    total = torch.randint(-(2**53), 2**53, (101,), generator=torch.Generator().manual_seed(0))
    scale, offset = 2.0**50, 2**64 - 101
    expected = noisy_sum(total.double() / scale, 0.3, KEY, 5, offset)
    assert torch.equal(noisy_sum(total, 0.3, KEY, 5, offset, scale=scale), expected)
    assert torch.equal(noisy_sum(total, 0.0, KEY, 5, scale=scale), (total.double() / scale).float())
    assert noisy_sum(torch.empty(0, dtype=torch.int64), 1.0, KEY, 0, scale=1.0).shape == (0,)


def test_integer_sums_need_no_slack() -> None:
    assert sum_slack(10**6, 10**6, torch.int64) == 0.0


OUT = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("add_clipped_sum_", (OUT, torch.randn(2, 3), torch.ones(2), None, 2.0**30)),
        ("clip_and_sum_", (OUT, torch.randn(2, 3), 1.0, None, 2.0**30)),
        ("noisy_sum", (OUT, 1.5, torch.arange(32, dtype=torch.uint8), 3, 4, 2.0**30)),
    ],
)
def test_opcheck(op: str, arguments: tuple) -> None:
    torch.library.opcheck(getattr(torch.ops.privkt, op).default, arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(2), out=OUT),
            "clipped_sum: scale must come with an int64 out, and only with it, got int64 and no scale; "
            "use grid_scale(max_norm, rows)",
        ),
        (
            lambda: clip_and_sum(torch.ones(2, 3), 1.0, out=torch.zeros(3), scale=2.0**30),
            "clip_and_sum: scale must come with an int64 out, and only with it, got float32 and 1073741824.0; "
            "use grid_scale(max_norm, rows)",
        ),
        (
            lambda: clipped_sum(torch.ones(2, 3), torch.ones(2), scale=2.0**30),
            "clipped_sum: scale must come with an int64 out, got 1073741824.0 and none; pass one of zeros",
        ),
        (
            lambda: noisy_sum(OUT, 1.0, KEY, 0, scale=3.0),
            "noisy_sum: scale must be a power of two between 2^-512 and 2^512, got 3.0; use grid_scale(max_norm, rows)",
        ),
        (
            lambda: clip_and_sum(torch.ones(2, 3), 1.0, out=OUT, scale=2.0**19),
            "clip_and_sum: scale must give max_norm at least 2^20 cells, got 524288; use grid_scale(max_norm, rows)",
        ),
        (
            lambda: grid_scale(1.0, 2**33),
            "grid_scale: rows must be few enough to leave max_norm 2^20 cells, 2^32 at most, got 8589934592; "
            "add up float64 sums, or say the cap of a batch",
        ),
        (lambda: grid_scale(1.0, -1), "grid_scale: rows must not be negative, got -1; count the records"),
        (
            lambda: grid_scale(math.nan, 1),
            "grid_scale: max_norm must be between 2^-126 and 2^127, got nan; rescale the losses",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message

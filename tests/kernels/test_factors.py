"""Clip factors: the stored norm is never above the clipping norm, in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privkt.kernels import clip_factors, row_sqnorms

pytestmark = pytest.mark.usefixtures("implementation")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

MAX_NORMS = st.floats(2.0**-60, 2.0**60)
WIDTHS = st.sampled_from([1, 2, 3, 31, 32, 33, 97])
NASTY = st.sampled_from([0.0, -0.0, 2.0**-149, 2.0**-127, -(2.0**-126), 1.0, -3.5e7, 3.4e38, -3.4e38])


@st.composite
def rows(draw: st.DrawFn, finite: bool = True) -> np.ndarray:
    shape = (draw(st.integers(0, 5)), draw(WIDTHS))
    floats = st.floats(width=32, allow_nan=not finite, allow_infinity=not finite)
    return draw(hnp.arrays(np.float32, shape, elements=NASTY | floats | st.floats(-4, 4, width=32)))


def exact_sqnorm(values: np.ndarray) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in values), Fraction(0))


@settings(SHARED, max_examples=150)
@given(rows(), MAX_NORMS)
def test_the_stored_norm_is_never_above_the_clipping_norm(x: np.ndarray, max_norm: float) -> None:
    factors, finite = clip_factors(row_sqnorms(torch.from_numpy(x)), max_norm, width=x.shape[1])
    assert finite.all()
    for row, factor in zip(x, factors.numpy(), strict=True):
        assert exact_sqnorm(row * factor) <= Fraction(max_norm) ** 2


@settings(SHARED, max_examples=150)
@given(rows(), MAX_NORMS)
def test_the_factor_is_as_large_as_float32_allows(x: np.ndarray, max_norm: float) -> None:
    factors, _ = clip_factors(row_sqnorms(torch.from_numpy(x)), max_norm, width=x.shape[1])
    for row, factor in zip(x, factors.numpy(), strict=True):
        if factor == 1 or factor < 2.0**-126:
            continue
        shortest = Fraction(max_norm) * (1 - Fraction(1, 2**21)) - Fraction(x.shape[1], 2**145)
        assert Fraction(float(factor)) ** 2 * exact_sqnorm(row) >= shortest * abs(shortest)


@settings(SHARED, max_examples=100)
@given(rows(finite=False), MAX_NORMS, st.data())
def test_rows_that_are_not_finite_are_removed_and_named(x: np.ndarray, max_norm: float, data: st.DataObject) -> None:
    mask = data.draw(hnp.arrays(np.bool_, len(x)))
    mask_tensor = torch.from_numpy(mask)
    sqnorms = row_sqnorms(torch.from_numpy(x), mask_tensor)
    factors, finite = clip_factors(sqnorms, max_norm, width=x.shape[1], mask=mask_tensor)
    good = np.isfinite(x).all(1)
    assert finite.tolist() == (good | ~mask).tolist()
    assert factors.isfinite().all()
    assert (factors.numpy()[~good | ~mask] == 0).all()


@settings(SHARED, max_examples=60)
@given(rows(), st.integers(1, 96))
def test_norms_of_pieces_add_to_the_norm_of_the_whole(x: np.ndarray, cut: int) -> None:
    whole = torch.from_numpy(x)
    parts = row_sqnorms(whole[:, :cut])
    assert row_sqnorms(whole[:, cut:], out=parts) is parts
    exact = [float(exact_sqnorm(row)) for row in x]
    torch.testing.assert_close(parts, torch.tensor(exact, dtype=torch.float64), rtol=2.0**-44, atol=0)


def test_no_rounding_escapes_for_single_elements() -> None:
    """Rows of one element: every stored value is compared with the clipping norm itself, no square in between."""
    x = torch.linspace(1.0, 2.0, 50_001)[1:, None]
    for max_norm in (1.0, 0.7, 1 / 3):
        factors = clip_factors(row_sqnorms(x), max_norm, width=1).factors
        assert ((x[:, 0] * factors).double() <= max_norm).all()


def test_short_rows_are_left_alone_and_zero_rows_too() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4]])
    factors, finite = clip_factors(row_sqnorms(x), 1.0, width=2)
    assert factors[1:].tolist() == [1.0, 1.0]
    assert 0.2 * (1 - 2.0**-22) <= factors[0].item() <= 0.2
    assert finite.tolist() == [True, True, True]


def test_bfloat16_rows_are_measured_exactly() -> None:
    x = torch.tensor([[1.5, -2.0, 0.0078125], [torch.inf, 1.0, 1.0]], dtype=torch.bfloat16)
    assert row_sqnorms(x).tolist() == [2.25 + 4 + 2.0**-14, torch.inf]


def test_a_norm_rule_with_slack_gets_a_smaller_factor() -> None:
    sqnorms = torch.tensor([4.0], dtype=torch.float64)
    plain, slack = (clip_factors(sqnorms, 1.0, width=1, slack=s).factors.item() for s in (0.0, 0.25))
    assert slack == pytest.approx(plain / 1.25, rel=1e-6)


def test_empty_batches_and_empty_rows() -> None:
    assert clip_factors(row_sqnorms(torch.empty(0, 7)), 1.0, width=7).factors.shape == (0,)
    assert clip_factors(row_sqnorms(torch.empty(2, 0)), 1.0, width=0).factors.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: row_sqnorms(torch.ones(2, 3, dtype=torch.float16)),
            "row_sqnorms: rows must be float32 or bfloat16, got float16; convert them before the call",
        ),
        (
            lambda: row_sqnorms(torch.ones(3)),
            "row_sqnorms: rows must have shape [batch, width], got [3]; flatten each sample's gradient",
        ),
        (
            lambda: row_sqnorms(torch.ones(3, 2).T),
            "row_sqnorms: rows must be contiguous along the width, got stride 2; call .contiguous() on them",
        ),
        (
            lambda: row_sqnorms(torch.ones(2, 3), torch.ones(3, dtype=torch.bool)),
            "row_sqnorms: mask must have shape [2], got [3]; reshape it before the call",
        ),
        (
            lambda: clip_factors(torch.ones(2), 1.0, width=1),
            "clip_factors: sqnorms must be float64, got float32; convert it before the call",
        ),
        (
            lambda: clip_factors(torch.ones(2, dtype=torch.float64), 0.0, width=1),
            "clip_factors: max_norm must be positive and finite, got 0.0; choose the clipping norm C",
        ),
        (
            lambda: clip_factors(torch.ones(2, dtype=torch.float64), float("nan"), width=1),
            "clip_factors: max_norm must be positive and finite, got nan; choose the clipping norm C",
        ),
        (
            lambda: clip_factors(torch.ones(2, dtype=torch.float64), 1.0, width=-1),
            "clip_factors: width must be the number of elements of a whole row, got -1; pass rows.shape[1]",
        ),
        (
            lambda: clip_factors(torch.ones(2, dtype=torch.float64), 1.0, width=1, slack=-0.5),
            "clip_factors: slack must be finite and not negative, got -0.5; pass the norm rule's proven error",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message

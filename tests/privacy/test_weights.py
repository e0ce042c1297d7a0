"""Integer weights: the certificate holds for the integers themselves, and is rounded outward."""

import math
import re
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.privacy import RefusedInput
from privkt.privacy.weights import LOG_UNIT, WeightTable, exact_epsilon, floor_logs


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-3, 40), st.integers(1, 300), st.integers(1, 150_000))
def test_the_range_never_exceeds_what_was_asked(epsilon: float, last: int, words: int) -> None:
    table = WeightTable.exponential(epsilon, last, words)
    with mpmath.workdps(50):
        exact = 2 * mpmath.log(mpmath.mpf(table.weights[0]) / table.weights[-1])
        assert exact <= mpmath.mpf(epsilon)
        assert exact <= mpmath.mpf(table.eps_range) <= exact * (1 + mpmath.mpf(2) ** -52)
    assert table.weights[0] * words < 2**62
    assert len(table.weights) == last + 1
    assert list(table.weights) == sorted(table.weights, reverse=True)
    assert table.eps_range > epsilon - 0.003
    assert Fraction(table.rho_range) >= Fraction(table.eps_range) ** 2 / 8


def test_weights_follow_the_exponential() -> None:
    table = WeightTable.exponential(6, 1000, 50_000)
    for t in (0, 1, 500, 999):
        assert table.weights[t] == pytest.approx(table.weights[0] * math.exp(-3 * t / 1000), rel=1e-6)
    assert table.narrow
    assert table.array().dtype == np.int32


def test_many_bits_where_epsilon_is_large_and_a_refusal_beyond() -> None:
    wide = WeightTable.exponential(40, 100, 150_000)
    assert not wide.narrow
    assert wide.array().dtype == np.int64
    assert wide.weights[-1] >= 2**10
    with pytest.raises(RefusedInput, match="the smallest weight 10 bits, got a range of 50 for 150000 words"):
        WeightTable.exponential(50, 100, 150_000)
    for rate in (1e6, 1e308):
        with pytest.raises(RefusedInput, match="the smallest weight 10 bits"):
            WeightTable.decaying(rate, 4095, 10)


def test_equal_weights_have_range_zero() -> None:
    assert WeightTable((5, 5, 5), 3).eps_range == 0.0
    assert WeightTable((5,), 3).rho_range == 0.0
    assert set(WeightTable.decaying(0, 7, 9).weights) == {2**30}


@pytest.mark.parametrize(
    ("weights", "words", "message"),
    [
        ((3, 0), 2, "weights must be integers >= 1, got 0 at level 1"),
        ((3, 2.0), 2, "weights must be integers >= 1, got 2.0 at level 1"),
        ((3, 4), 2, "weights must not grow with the level, got 3 then 4 from level 0 on; order them by utility"),
        (
            (2**61,),
            2,
            "words times the largest weight must be below 2^62, got 2 * 2305843009213693952; use fewer bits",
        ),
        ((), 2, "weights must be 1 to 32768 integers, got 0"),
    ],
)
def test_weights_without_a_certificate_are_refused(weights, words: int, message: str) -> None:
    with pytest.raises(RefusedInput, match=re.escape(message)):
        WeightTable(weights, words)


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=50))
def test_logarithms_are_within_two_units(values: list[int]) -> None:
    with mpmath.workdps(40):
        for value, log in zip(values, floor_logs(values).tolist(), strict=True):
            exact = LOG_UNIT * mpmath.log(value)
            assert log <= exact <= log + 2


def test_the_exact_epsilon_of_an_enumerated_table() -> None:
    weights = np.array([[9, 3, 1], [3, 9, 2], [1, 2, 9]])
    totals = weights.sum(1)
    logs = floor_logs(weights.ravel()).reshape(3, 3) - floor_logs(totals)[:, None]
    p = weights / totals[:, None]
    truth = max(math.log(p[:, y].max() / p[:, y].min()) for y in range(3))
    got = exact_epsilon(logs.max(0).tolist(), logs.min(0).tolist())
    assert truth <= got <= truth + 2**-20
    with pytest.raises(RefusedInput, match="most must not be below least"):
        exact_epsilon([0], [1])

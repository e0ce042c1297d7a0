"""Correlated noise: coefficients, strategies and sensitivities against dense matrices and exhaustive schedules."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from privkt.privacy import InvalidEvent
from privkt.privacy.correlated import (
    banded_square_root_coefficients,
    cgd_coefficients,
    sensitivity,
    strategy,
    survives_a_restart,
)


def _dense(coefficients, steps):
    column = np.zeros(steps)
    column[: min(steps, len(coefficients))] = coefficients[:steps]
    return np.linalg.inv(toeplitz(column, np.zeros(steps)))


def _worst(c, separation, count):
    """Every schedule, every sign of every participation: the largest norm of C G for gradients on a line."""
    worst = 0.0
    steps = len(c)
    for size in range(1, count + 1):
        for when in itertools.combinations(range(steps), size):
            if all(b - a >= separation for a, b in itertools.pairwise(when)):
                for signs in itertools.product((1, -1), repeat=size):
                    worst = max(worst, float(np.linalg.norm(c[:, when] @ np.array(signs, dtype=float))))
    return worst


@pytest.mark.parametrize("coefficients", [(1.0,), (1.0, -0.9), banded_square_root_coefficients(4), (1.0, 0.5, -0.3)])
def test_the_strategy_is_the_inverse(coefficients):
    assert np.allclose(strategy(coefficients, 12), _dense(coefficients, 12)[:, 0], rtol=1e-12, atol=1e-14)


def test_the_square_root_squared_is_one_minus_x():
    a = banded_square_root_coefficients(30)
    assert np.convolve(a, a)[:30] == pytest.approx([1.0, -1.0] + [0.0] * 28, abs=1e-15)
    assert a[:4] == (1.0, -0.5, -0.125, -0.0625)


def test_the_square_root_is_its_own_inverse_up_to_its_bands():
    c = strategy(banded_square_root_coefficients(20), 20)
    assert c[:4] == pytest.approx([1, 1 / 2, 3 / 8, 5 / 16])
    assert np.convolve(c, c)[:20] == pytest.approx(np.ones(20))


@pytest.mark.parametrize(
    "coefficients", [(1.0,), (1.0, -0.5), (1.0, -0.95), *map(banded_square_root_coefficients, (2, 3, 9))]
)
@pytest.mark.parametrize(("separation", "count"), [(1, 2), (3, 3), (4, 2), (9, 1)])
def test_decreasing_columns_reach_the_bound(coefficients, separation, count):
    worst = _worst(_dense(coefficients, 9), separation, count)
    assert worst <= sensitivity(coefficients, 9, separation, count) <= worst * (1 + 1e-8)


@given(
    st.lists(st.floats(min_value=-0.6, max_value=0.6), min_size=1, max_size=3),
    st.integers(min_value=1, max_value=7),
    st.integers(min_value=1, max_value=3),
)
@settings(max_examples=30)
def test_no_schedule_exceeds_the_bound_whatever_the_coefficients(rest, separation, count):
    coefficients = (1.0, *rest)
    assert _worst(_dense(coefficients, 7), separation, count) <= sensitivity(coefficients, 7, separation, count)


def test_independent_noise_counts_participations():
    assert sensitivity((1.0,), 100, 10, 7) == pytest.approx(math.sqrt(7))
    assert sensitivity((1.0,), 95, 10) == pytest.approx(math.sqrt(10))


def test_a_sensitivity_of_one_participation_would_not_cover_two():
    """The planted fault: the column norm of a single epoch for a training of several."""
    once = sensitivity(cgd_coefficients(0.9), 40, 40)
    assert once == pytest.approx(math.sqrt((1 - 0.9**80) / (1 - 0.81)), rel=1e-6)
    assert sensitivity(cgd_coefficients(0.9), 40, 10, 4) > 1.9 * once


@given(
    st.integers(min_value=1, max_value=11), st.sampled_from([cgd_coefficients(0.8), banded_square_root_coefficients(5)])
)
def test_forgetting_old_noise_never_raises_the_sensitivity(at, coefficients):
    assert survives_a_restart(coefficients)
    c = _dense(coefficients, 12)
    restarted = c.copy()
    restarted[at:, :at] = 0
    assert _worst(restarted, 4, 3) <= sensitivity(coefficients, 12, 4, 3)


def test_noise_that_is_added_again_may_not_be_forgotten():
    assert not survives_a_restart((1.0, -0.5, 0.1))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: cgd_coefficients(1.0), r"factor must lie in \[0, 1\), got 1.0"),
        (lambda: banded_square_root_coefficients(0), "at least one band, got 0"),
        (lambda: strategy((0.5, 0.1), 4), "must be finite and begin with 1"),
        (lambda: strategy((1.0, math.nan), 4), "must be finite and begin with 1"),
        (lambda: strategy((1.0, -3.0), 1000), "whose inverse grows"),
        (lambda: strategy((1.0,), 0), "steps must lie between 1"),
        (lambda: sensitivity((1.0,), 10, 0), "must take part at least once"),
        (lambda: sensitivity((1.0,), 10, 5, 0), "must take part at least once"),
    ],
)
def test_noise_that_cannot_be_is_refused(make, rule):
    with pytest.raises(InvalidEvent, match=rule):
        make()

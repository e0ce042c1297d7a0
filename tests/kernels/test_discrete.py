"""The exact discrete Gaussian: agreement with big integers, its distribution, and what the accountant is told of it."""

import math
from collections import Counter
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privkt.kernels import (
    accounted_sigma,
    add_discrete_gaussian_,
    covering_sigma,
    discrete_gaussian_,
    discrete_grid,
    representable_sigma,
)
from privkt.kernels.reference_discrete import bernoulli, bernoulli_exp, draw, words
from privkt.testing.statistics import CUT_OFF, chi_square_p

KEY = bytes(range(32))
SIGMAS = [2.0**-6, 0.5, 1.0, 3.25, 1000.0, 2.0**20 + 2.0**-11, 2.0**32 - 1, 2.0**40]


def noise(count: int, sigma: float, step: int = 0, offset: int = 0) -> torch.Tensor:
    return discrete_gaussian_(torch.empty(count, dtype=torch.int64), sigma, KEY, step, offset)


@settings(max_examples=25)
@given(
    st.sampled_from(SIGMAS), st.integers(0, 2**64 - 1), st.integers(0, 2**46 - 10), st.binary(min_size=32, max_size=32)
)
def test_native_noise_is_the_reference(sigma: float, step: int, offset: int, key: bytes) -> None:
    got = discrete_gaussian_(torch.empty(10, dtype=torch.int64), sigma, key, step, offset)
    assert got.tolist() == [draw(sigma, words(key, step, offset + i)) for i in range(10)]


def test_a_stretch_longer_than_a_group_of_blocks_is_the_reference() -> None:
    """150 coordinates, of which a fifth need more words than are prepared for them."""
    assert noise(150, 12345.5, 7, 3).tolist() == [draw(12345.5, words(KEY, 7, 3 + i)) for i in range(150)]


@pytest.mark.usefixtures("implementation")
def test_a_slice_is_the_slice_of_the_whole_and_noise_adds_up() -> None:
    whole = noise(120, 9.0, 5, 100)
    assert torch.equal(noise(31, 9.0, 5, 177), whole[77:108])
    total = torch.arange(120) * 10**12
    assert torch.equal(add_discrete_gaussian_(total.clone(), 9.0, KEY, 5, 100), total + whole)
    assert torch.equal(add_discrete_gaussian_(total.clone(), 0.0, KEY, 5, 100), total)
    assert noise(3, 0.0).tolist() == [0, 0, 0]
    assert not torch.equal(noise(120, 9.0, 6, 100), whole)


def test_threads_change_nothing() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = noise(10_000, 77.0)
        torch.set_num_threads(3)
        assert torch.equal(noise(10_000, 77.0), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 1), (1, 3), (2, 3), (2**40, 2**41 + 1), (2**32 - 1, 2**32)])
def test_a_uniform_number_is_compared_with_a_fraction_exactly(word: int, a: int, b: int) -> None:
    """All real numbers that begin with `word` and go on with the least or the greatest that can follow."""
    for rest in (0, 2**32 - 1):
        uniform = Fraction(word, 2**32) + sum(Fraction(rest, 2 ** (32 * k)) for k in range(2, 12))
        assert bernoulli(a, b, iter([word] + [rest] * 10)) == (uniform < Fraction(a, b))


def test_the_coin_of_exp_is_fair_to_its_number() -> None:
    source = words(KEY, 1, 1)
    heads = sum(bernoulli_exp(2, 3, source) for _ in range(4_000))
    assert stats.binomtest(heads, 4_000, math.exp(-2 / 3)).pvalue > 1e-6


@pytest.mark.parametrize("sigma", [0.5, 1.5, 6.0])
def test_small_deviations_have_the_distribution(sigma: float) -> None:
    reach = range(-int(9 * sigma) - 3, int(9 * sigma) + 4)
    weights = {x: math.exp(-x * x / (2 * sigma * sigma)) for x in reach}
    normalised = {x: w / math.fsum(weights.values()) for x, w in weights.items()}
    assert chi_square_p(noise(200_000, sigma, step=2).tolist(), normalised) > CUT_OFF


@pytest.mark.parametrize("sigma", [2.0**20, 2.0**40])
def test_large_deviations_are_normal(sigma: float) -> None:
    """A grid this fine moves the distribution function by less than 2^-20: a thousandth of what a test could see."""
    z = noise(100_000, sigma, step=3).numpy() / sigma
    assert stats.kstest(z, "norm").pvalue > 1e-6
    assert abs(np.mean(z**2) - 1) < stats.norm.isf(5e-7) * math.sqrt(2 / len(z))
    assert Counter(np.sign(z))[0.0] <= 1


def test_the_rounding_that_the_proof_takes_off_is_as_even_as_it_says() -> None:
    """sup over g of |sum_z exp(-(z - g)^2 / 2 r^2) / (r sqrt(2 pi)) - 1| at r = 2: attained at g = 0 and g = 1/2."""
    with mpmath.workdps(60):
        r = mpmath.mpf(2)
        bound = 2 * mpmath.exp(-2 * mpmath.pi**2 * r**2) * (1 + mpmath.mpf(2) ** -60)
        assert bound <= mpmath.mpf(accounted_sigma(100.0)[1])
        for g in (mpmath.mpf(0), mpmath.mpf(1) / 8, mpmath.mpf(1) / 2):
            total = mpmath.fsum(mpmath.exp(-((z - g) ** 2) / (2 * r**2)) for z in range(-60, 61))
            assert abs(total / (r * mpmath.sqrt(2 * mpmath.pi)) - 1) <= bound


def test_discrete_noise_is_rounded_continuous_noise_within_the_stated_variation() -> None:
    """At sigma 3, the proof's other side computed: a continuous normal, then a discrete one of deviation 2 about it.

    The trapezoidal rule is exact to far more than 2^-112 for so smooth a function.
    """
    with mpmath.workdps(50):
        sigma, r = mpmath.mpf(3), mpmath.mpf(2)
        rest = sigma**2 - r**2
        weight = lambda x, square: mpmath.exp(-(x**2) / (2 * square))  # noqa: E731
        exact = mpmath.fsum(weight(x, sigma**2) for x in range(-60, 61))
        step = mpmath.mpf(1) / 8
        centres = [step * i for i in range(-8 * 40, 8 * 40 + 1)]
        sums = [mpmath.fsum(weight(z - mpmath.frac(g), r**2) for z in range(-45, 46)) for g in centres[:8]]
        shares = [
            step * weight(g, rest) / mpmath.sqrt(2 * mpmath.pi * rest) / sums[i % 8] for i, g in enumerate(centres)
        ]
        for x in (0, 1, 5):
            rounded = mpmath.fsum(share * weight(x - g, r**2) for g, share in zip(centres, shares, strict=True))
            assert abs(rounded * exact / weight(x, sigma**2) - 1) <= 2 * mpmath.mpf(accounted_sigma(3.0)[1])


def test_what_the_accountant_is_told() -> None:
    deviation, variation = accounted_sigma(2.0**21)
    assert Fraction(deviation) ** 2 <= Fraction(2**42 - 4)
    assert deviation > 2.0**21 * (1 - 2.0**-40)
    assert variation == 2.0**-112
    for refused in (2.0, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="accounted_sigma: sigma_cells must be above 2 and finite"):
            accounted_sigma(refused)


@given(st.floats(2.0**-6, 2.0**39))
def test_a_deviation_is_rounded_up_by_little(sigma: float) -> None:
    near = representable_sigma(sigma)
    assert sigma <= near <= sigma * (1 + 2.0**-31)
    assert representable_sigma(near) == near
    noise(1, near)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: noise(1, -1.0),
            "discrete_gaussian_: sigma must be 0 or between 2^-6 and 2^40 cells, got -1.0; choose another grid",
        ),
        (
            lambda: noise(1, 1 / 3),
            "discrete_gaussian_: sigma must have at most 32 significant bits, got 0.3333333333333333; "
            "use representable_sigma(sigma)",
        ),
        (
            lambda: noise(2, 1.0, 0, 2**46 - 1),
            "discrete_gaussian_: offset + n must be in [0, 2^46], got 70368744177663 + 2; use the next step",
        ),
        (
            lambda: noise(2, 1.0, 2**64),
            "discrete_gaussian_: step must be in [0, 2^64), got 18446744073709551616; use a new key before it runs out",
        ),
        (
            lambda: add_discrete_gaussian_(torch.zeros(2), 1.0, KEY, 0),
            "add_discrete_gaussian_: total must be int64, got float32; convert it before the call",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message


@given(st.floats(0, 2.0**39))
def test_noise_that_covers_a_deviation_costs_no_more_than_it(deviation: float) -> None:
    sigma = covering_sigma(deviation)
    assert accounted_sigma(sigma)[0] >= deviation
    assert representable_sigma(sigma) == sigma
    assert sigma <= math.hypot(deviation, 2.0) * (1 + 2.0**-30)


@given(st.floats(2.0**-100, 2.0**100), st.integers(0, 2**31), st.floats(0, 2.0**18))
def test_a_grid_for_discrete_noise_holds_the_sum_and_its_noise(norm: float, rows: int, multiplier: float) -> None:
    scale, sigma = discrete_grid(norm, rows, multiplier * norm)
    assert math.frexp(scale)[0] == 0.5
    assert norm * scale >= 2**20
    assert norm * scale * rows <= 2**52
    assert sigma <= 2**40
    assert accounted_sigma(sigma)[0] >= multiplier * norm * scale


def test_noise_that_leaves_no_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise must leave max_norm 2\^20 cells, got a deviation of 4.19e\+06 times"):
        discrete_grid(1.0, 100, 2.0**22)
    with pytest.raises(ValueError, match="deviation must be finite and not negative, got nan"):
        discrete_grid(1.0, 100, math.nan)

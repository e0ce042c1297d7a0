"""Balls in bins: the distribution found is above the true one, by little, in both directions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privkt.privacy import allocation, balls_in_bins_event, compose, delta_at, epsilon, gaussian_event
from privkt.privacy.accounting import coarse_epsilon, poisson_gaussian_event, replace_one_epsilon

FALSE_ALARM = 1e-6


def hockey_sticks(noise, bins, eps, cells=allocation.CELLS):
    """E(X - e^eps)+ and E(1 - e^eps X)+ of the distribution that is used."""
    ratio = allocation.balls_in_bins(noise, bins, cells)
    emptied = ratio.masses @ np.maximum(0, ratio.values - math.exp(eps)) + ratio.infinite
    return emptied, ratio.masses @ np.maximum(0, 1 - math.exp(eps) * ratio.values)


def gaussian_delta(noise, eps):
    return stats.norm.cdf(0.5 / noise - eps * noise) - math.exp(eps) * stats.norm.cdf(-0.5 / noise - eps * noise)


@pytest.mark.parametrize("noise", [0.4, 1.0, 5.0])
def test_one_bin_is_the_gaussian_mechanism(noise):
    for eps in (0.0, 0.1, 1.0, 3.0):
        exact = gaussian_delta(noise, eps)
        for found in hockey_sticks(noise, 1, eps):
            assert exact * (1 - 1e-9) <= found <= exact * (1 + 2e-2) + 1e-13
    assert balls_in_bins_event(noise, 1, 3) == gaussian_event(noise, 3)


def two_bins(noise, eps, shift_of_other=0.0):
    """Exact hockey sticks on a fine grid in the plane: P = mean of the two shifts, Q shifted by `shift_of_other`."""
    axis = np.linspace(-9 * noise - 1, 9 * noise + 1, 1001)
    cell = (axis[1] - axis[0]) ** 2

    def density(shift):
        one, none = stats.norm.pdf(axis, shift, noise), stats.norm.pdf(axis, 0, noise)
        return (np.outer(one, none) + np.outer(none, one)) / 2

    p, q = density(1.0), density(shift_of_other)
    return tuple(np.maximum(0, a - math.exp(eps) * b).sum() * cell for a, b in ((p, q), (q, p)))


@pytest.mark.parametrize(("noise", "eps"), [(0.7, 0.3), (0.7, 1.5), (1.5, 0.1), (1.5, 0.6)])
def test_two_bins_against_integration(noise, eps):
    for found, exact in zip(hockey_sticks(noise, 2, eps), two_bins(noise, eps), strict=True):
        assert exact * (1 - 1e-5) <= found <= exact * 1.002


@pytest.mark.parametrize(("noise", "bins"), [(0.5, 3), (1.0, 7), (0.6, 100), (2.0, 1000)])
def test_means_are_kept_and_variance_hardly_grows(noise, bins):
    ratio = allocation.balls_in_bins(noise, bins)
    assert ratio.masses.min() >= 0
    assert np.all(np.diff(ratio.values) > 0)
    assert ratio.masses.sum() == pytest.approx(1, abs=1e-11)
    assert ratio.masses @ ratio.values + ratio.infinite == pytest.approx(1, abs=1e-11)
    variance = ratio.masses @ (ratio.values - 1) ** 2
    exact = math.expm1(1 / noise**2) / bins
    assert exact * (1 - 1e-9) <= variance <= exact * 1.003


@given(
    st.floats(min_value=0.3, max_value=5),
    st.integers(min_value=1, max_value=300),
    st.floats(min_value=0, max_value=3),
)
@settings(max_examples=8)
def test_coarse_cells_only_raise_delta_and_one_bin_is_the_worst(noise, bins, eps):
    fine, coarse = hockey_sticks(noise, bins, eps), hockey_sticks(noise, bins, eps, allocation.FEW_CELLS)
    for a, b in zip(fine, coarse, strict=True):
        assert a <= b * 1.01 + 1e-13
        assert b <= a * 1.2 + 1e-6
        assert a <= gaussian_delta(noise, eps) * 1.003 + 1e-13


@given(st.lists(st.floats(min_value=0.01, max_value=20), min_size=1, max_size=30), st.floats(0.0, 25.0))
def test_a_split_keeps_mass_and_mean_and_raises_every_hockey_stick(values, at):
    points, values = np.concatenate([[0.0], np.geomspace(0.005, 40, 60)]), np.array(values)
    weights, masses = np.full(len(values), 1 / len(values)), np.zeros(61)
    allocation.spread(points, values, weights, masses)
    assert masses.sum() == pytest.approx(1)
    assert masses @ points == pytest.approx(weights @ values)
    assert masses @ np.maximum(0, points - at) >= weights @ np.maximum(0, values - at) - 1e-12


@pytest.mark.parametrize(("noise", "bins", "eps"), [(0.8, 20, 0.3), (1.2, 6, 0.2), (0.5, 50, 0.5)])
def test_draws_agree(noise, bins, eps):
    """Monte Carlo of both hockey sticks; bounded variables, so 5.1 standard errors are a false alarm below 1e-6."""
    rng = np.random.default_rng(bins)
    logs = rng.standard_normal((100_000, bins)) / noise - 0.5 / noise**2
    shifted = logs.copy()
    shifted[:, 0] += noise**-2
    under_p, under_q = np.exp(shifted).mean(1), np.exp(logs).mean(1)
    draws = np.maximum(0, 1 - math.exp(eps) / under_p), np.maximum(0, 1 - math.exp(eps) * under_q)
    for found, drawn in zip(hockey_sticks(noise, bins, eps), draws, strict=True):
        error = 5.1 * drawn.std() / math.sqrt(len(drawn))
        assert error < 0.1 * found  # else the test could not fail
        assert drawn.mean() - error <= found <= drawn.mean() * 1.005 + error


def test_an_epoch_without_its_tail_would_fail_against_draws():
    """The planted fault: cutting the largest ratios off instead of moving them outward."""
    ratio = allocation.balls_in_bins(0.5, 50)
    kept = ratio.values < 4
    assert ratio.masses[kept] @ np.maximum(0, ratio.values[kept] - math.exp(0.5)) < 0.8 * hockey_sticks(0.5, 50, 0.5)[0]


def test_epochs_compose():
    event = balls_in_bins_event(0.8, 20, 5)
    assert epsilon(event, 1e-5) == epsilon(compose([balls_in_bins_event(0.8, 20)] * 5), 1e-5)
    assert epsilon(balls_in_bins_event(0.8, 20), 1e-5) < epsilon(event, 1e-5)
    found = epsilon(event, 1e-5)
    assert delta_at(event, found) == pytest.approx(1e-5, rel=1e-2)
    assert found <= coarse_epsilon(event, 1e-5) <= 1.02 * found


def test_bins_cost_less_than_no_bins_and_here_less_than_poisson():
    for noise, bins, epochs in ((0.8, 20, 5), (2.0, 8, 10)):
        found = epsilon(balls_in_bins_event(noise, bins, epochs), 1e-5)
        assert found < epsilon(poisson_gaussian_event(noise, 1 / bins, bins * epochs), 1e-5)
        assert found < 0.9 * epsilon(gaussian_event(noise, epochs), 1e-5)


@pytest.mark.parametrize(("noise", "eps"), [(0.7, 1.0), (1.5, 0.6)])
def test_replacing_in_two_bins_against_integration(noise, eps):
    opposite = two_bins(noise, eps, shift_of_other=-1.0)
    event = balls_in_bins_event(noise, 2)
    assert max(opposite) <= delta_at(event, eps, "replace-one") * (1 + 1e-9)
    found = replace_one_epsilon(event, 1e-4)
    assert max(two_bins(noise, found, shift_of_other=-1.0)) <= 1e-4


def test_replacing_costs_more_than_emptying_and_less_than_a_doubled_gaussian():
    event = balls_in_bins_event(0.8, 100, 3)
    found = replace_one_epsilon(event, 1e-5)
    assert 1.5 * epsilon(event, 1e-5) < found < 0.7 * replace_one_epsilon(gaussian_event(0.8, 3), 1e-5)

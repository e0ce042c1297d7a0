"""Schemes: each kind of sampler with its own price, and no way to take one with another's."""

import math

import numpy as np
import pytest

from privkt.dpsgd import RefusedTraining
from privkt.dpsgd.epochs import BallsInBinsSampler, FixedOrderSampler
from privkt.dpsgd.sampling import PoissonSampler, TruncatedPoissonSampler
from privkt.dpsgd.schemes import BallsInBins, FixedOrder, Poisson, TruncatedPoisson, rarely_met_cap, scheme_of
from privkt.privacy import (
    balls_in_bins_event,
    correlated,
    epsilon,
    gaussian_event,
    poisson_gaussian_event,
    truncated_poisson_gaussian_event,
)
from privkt.privacy.events import leaves

KEY = bytes(32)


@pytest.mark.parametrize(
    ("scheme", "event", "sampler"),
    [
        (Poisson(100, 30), poisson_gaussian_event(2.0, 0.3, 10), PoissonSampler),
        (
            TruncatedPoisson(100, 30, 48),
            truncated_poisson_gaussian_event(2.0, 0.3, 10, size=100, cap=48),
            TruncatedPoissonSampler,
        ),
        (BallsInBins(100, 30), balls_in_bins_event(2.0, 4, 3), BallsInBinsSampler),
        (FixedOrder(100, 30), gaussian_event(2.0, 3), FixedOrderSampler),
    ],
)
def test_each_kind_names_its_own_event_and_makes_its_own_sampler(scheme, event, sampler):
    assert scheme.event(2.0, 10) == event
    assert type(scheme.sampler(KEY)) is sampler
    assert scheme_of(scheme.kind, 100, 30, cap=getattr(scheme, "cap", None)) == scheme


def test_no_two_kinds_cost_the_same():
    """Poisson's epsilon for a public order would be less than two thirds of what it costs."""
    kinds = (Poisson(100, 25), TruncatedPoisson(100, 25, 45), BallsInBins(100, 25), FixedOrder(100, 25))
    found = [epsilon(scheme.event(2.0, 8), 1e-5) for scheme in kinds]
    assert len(set(found)) == 4
    assert found[0] < found[1]
    assert found[0] < 2 / 3 * found[3]
    assert found[3] == max(found)


def test_an_epoch_that_is_not_finished_is_charged_whole():
    for scheme in (BallsInBins(100, 30), FixedOrder(100, 30)):
        assert scheme.event(2.0, 9) == scheme.event(2.0, 12) != scheme.event(2.0, 8)


@pytest.mark.parametrize("scheme", [Poisson(100, 30), BallsInBins(100, 30), FixedOrder(100, 30)])
def test_divisor_rate_and_mean_draw_agree(scheme):
    assert math.isclose(scheme.divisor, scheme.rate * scheme.size)
    sampler = scheme.sampler(KEY)
    mean = np.mean([len(sampler.draw(step)) for step in range(400)])
    assert abs(mean - scheme.divisor) < 2


@pytest.mark.parametrize(
    ("scheme", "epochs", "steps"),
    [(Poisson(100, 30), 3, 10), (BallsInBins(100, 30), 3, 12), (FixedOrder(100, 30), 0.5, 2)],
)
def test_steps_of_an_epoch(scheme, epochs, steps):
    assert scheme.steps_of(epochs) == steps


def test_correlated_noise_costs_its_own_sensitivity_in_the_public_order_and_is_refused_elsewhere():
    coefficients = correlated.cgd_coefficients(0.5)
    moved = correlated.sensitivity(coefficients, 8, 4, 2)
    (leaf,) = leaves(FixedOrder(100, 25).event(3.0, 8, coefficients))
    assert leaf.noise_multiplier == 3.0 / moved
    for scheme in (Poisson(100, 25), TruncatedPoisson(100, 25, 60), BallsInBins(100, 25)):
        with pytest.raises(RefusedTraining, match="correlated noise needs steps that are known beforehand"):
            scheme.event(3.0, 8, coefficients)


def test_a_rarely_met_cap_is_met_rarely_and_is_the_smallest():
    cap = rarely_met_cap(2000, 256, 160, 1e-5)
    assert 256 < cap < 400
    plain, capped, less = (
        epsilon(event, 1e-5)
        for event in (
            poisson_gaussian_event(2.0, 0.128, 160),
            truncated_poisson_gaussian_event(2.0, 0.128, 160, size=2000, cap=cap),
            truncated_poisson_gaussian_event(2.0, 0.128, 160, size=2000, cap=280),
        )
    )
    assert plain <= capped <= plain * 1.001 < less
    assert rarely_met_cap(2000, 256, 160, 1e-5, multiple_of=64) % 64 == 0
    assert rarely_met_cap(2000, 2000, 1, 1e-5) == 2000


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: scheme_of("shuffled", 100, 30), "sampler must be one of poisson, truncated-poisson"),
        (lambda: scheme_of("poisson", 100, 30, cap=40), "sampler poisson has no cap"),
        (lambda: scheme_of("balls-in-bins", 100, 30, seed=1), "sampler balls-in-bins has no seed"),
        (lambda: scheme_of("truncated-poisson", 100, 30), "needs a cap, got none"),
        (lambda: TruncatedPoisson(100, 30, 29), "at least the expected batch of 30, got 29"),
        (lambda: FixedOrder(100, 101), "between 1 and N = 100, got 101"),
    ],
)
def test_schemes_that_cannot_be_are_refused(make, rule):
    with pytest.raises(RefusedTraining, match=rule):
        make()

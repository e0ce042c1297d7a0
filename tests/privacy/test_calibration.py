import math
import time

import dp_accounting as dpa
import pytest

from privkt.privacy import (
    InvalidBudget,
    InvalidEvent,
    Neighbouring,
    calibrate_noise,
    epsilon,
    gaussian_event,
    poisson_gaussian_event,
)

CASES = [(8.0, 1e-5, 0.256, 16), (1.0, 1e-6, 0.001, 20_000), (3.0, 1e-5, 0.25, 32), (0.1, 1e-7, 1.0, 10)]


@pytest.mark.parametrize("relation", [Neighbouring.ZERO_OUT, Neighbouring.REPLACE_ONE])
@pytest.mark.parametrize(("target", "delta", "rate", "steps"), CASES)
def test_the_noise_is_enough_and_hardly_more(target, delta, rate, steps, relation):
    noise = calibrate_noise(target, delta, rate, steps, relation)
    assert epsilon(poisson_gaussian_event(noise, rate, steps), delta, relation) <= target
    less = poisson_gaussian_event(noise * (1 - 2e-4), rate, steps)
    assert epsilon(less, delta, relation) > target


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"), [(0.001, 1e-6, 0.05, 5), (0.001, 0.5, 1.0, 1), (0.01, 1e-2, 0.1, 3)]
)
def test_a_tiny_epsilon_beside_a_delta_that_covers_nearly_everything_is_met(target, delta, rate, steps):
    noise = calibrate_noise(target, delta, rate, steps)
    assert 0 < epsilon(poisson_gaussian_event(noise, rate, steps), delta) <= target


def test_the_library_alone_agrees_with_a_calibrated_run():
    noise = calibrate_noise(8.0, 1e-5, 0.256, 16)
    accountant = dpa.pld.PLDAccountant().compose(poisson_gaussian_event(noise, 0.256, 16))
    assert accountant.get_epsilon(1e-5) == pytest.approx(8.0, rel=1e-3)


def test_slack_is_taken_from_delta_first():
    noise = calibrate_noise(3.0, 1e-5, 0.25, 32, slack_delta=9e-6)
    assert epsilon(poisson_gaussian_event(noise, 0.25, 32), 1e-6) <= 3.0
    assert noise > calibrate_noise(3.0, 1e-5, 0.25, 32) * 1.01


def test_everybody_in_every_batch_is_the_gaussian_mechanism():
    noise = calibrate_noise(2.0, 1e-5, 1.0, 4)
    assert epsilon(gaussian_event(noise / 2), 1e-5) == pytest.approx(2.0, rel=2e-4)


def test_asking_again_costs_nothing():
    calibrate_noise(2.5, 1e-5, 0.2, 20)
    began = time.perf_counter()
    calibrate_noise(2.5, 1e-5, 0.2, 20)
    assert time.perf_counter() - began < 0.05


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((0.0, 1e-5, 0.1, 10), "epsilon must be finite and > 0, got 0.0"),
        ((math.nan, 1e-5, 0.1, 10), "epsilon must be finite and > 0, got nan"),
        ((1.0, 0.0, 0.1, 10), "delta must lie strictly between 0 and 1, got 0.0"),
        ((1e-9, 1e-300, 1.0, 10), "must be reachable with a noise multiplier below"),
    ],
)
def test_impossible_budgets_are_refused(arguments, rule):
    with pytest.raises(InvalidBudget, match=rule):
        calibrate_noise(*arguments)


def test_impossible_plans_are_refused():
    with pytest.raises(InvalidBudget, match="slack_delta must be at least 0 and below delta"):
        calibrate_noise(1.0, 1e-5, 0.1, 10, slack_delta=1e-5)
    with pytest.raises(InvalidEvent, match="sampling_rate must lie in"):
        calibrate_noise(1.0, 1e-5, 1.1, 10)

"""Chi-square and divergences against closed forms; the chi-square's false alarms by seeded draws."""

import math
import random

import pytest

from privkt.testing.statistics import CUT_OFF, FALSE_ALARM, chi_square_p, hockey_stick, largest_log_ratio, renyi

E = math.e
TRUE, FALSE = {"a": E / (1 + E), "b": 1 / (1 + E)}, {"a": 1 / (1 + E), "b": E / (1 + E)}


def test_randomised_response_has_its_epsilon():
    assert largest_log_ratio(TRUE, FALSE) == pytest.approx(1)
    assert hockey_stick(TRUE, FALSE, 1.0) == pytest.approx(0, abs=1e-15)
    assert hockey_stick(TRUE, FALSE, 0.0) == pytest.approx((E - 1) / (E + 1))
    assert renyi(TRUE, FALSE, 2.0) == pytest.approx(math.log((E**3 + 1) / (E**2 + E)))
    assert renyi(TRUE, FALSE, 1 + 1e-6) == pytest.approx(math.tanh(0.5), rel=1e-4)


def test_an_output_that_only_one_side_has_is_infinite():
    assert math.isinf(largest_log_ratio({"a": 1.0}, {"b": 1.0}))
    assert math.isinf(renyi({"a": 1.0}, {"b": 1.0}, 2.0))
    assert hockey_stick({"a": 1.0}, {"b": 1.0}, 50.0) == 1


def test_chi_square_of_two_cells_is_the_closed_form():
    outputs = ["a"] * 460 + ["b"] * 540
    z = 40 / math.sqrt(250)
    assert chi_square_p(outputs, {"a": 0.5, "b": 0.5}) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-9)


def test_what_is_not_listed_is_one_cell():
    outputs = ["a"] * 500 + ["x"] * 250 + ["y"] * 250
    assert chi_square_p(outputs, {"a": 0.5}) == pytest.approx(1)
    assert chi_square_p(outputs, {"a": 0.9}) < CUT_OFF


def test_what_cannot_happen_is_not_forgiven():
    assert chi_square_p(["a"] * 1000 + ["b"], {"a": 1.0}) == 0
    assert chi_square_p(["a"] * 1000 + ["b"], {"a": 1.0, "b": 0.0}) == 0


def test_small_cells_are_pooled_and_still_seen():
    expected = {"a": 0.9, **dict.fromkeys(range(100), 0.001)}
    good = ["a"] * 900 + list(range(100))
    assert chi_square_p(good, expected) > 0.5
    assert chi_square_p(["a"] * 1000, expected) < CUT_OFF


@pytest.mark.parametrize("p", [0.5, 0.02])
def test_fair_draws_are_not_accused(p):
    """2,000 seeded tests at a false-alarm rate below 1e-6 each: any alarm has probability below 2e-3."""
    draws = random.Random(0)
    worst = min(chi_square_p(draws.choices("ab", (p, 1 - p), k=3000), {"a": p, "b": 1 - p}) for _ in range(2000))
    assert CUT_OFF < FALSE_ALARM
    assert CUT_OFF < worst < 0.05

"""SANTEXT and TEM: TokenMechanismSuite, and the metric bound with all its rounding against enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.plugins import get_manager
from privkt.privacy import Kind, RefusedInput
from privkt.testing import TokenMechanismSuite
from privkt.testing.strategies import vector_tables

TABLE = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32)


def made(name, *args, **kwargs):
    return get_manager().create("mechanism", name, *args, **kwargs)


class TestSanText(TokenMechanismSuite):
    name = "santext"
    scale_free = True

    def over(self, table, epsilon):
        return made(self.name, table, epsilon)

    def mechanisms(self):
        return [
            made("santext", TABLE, 3.0, timing="fixed"),
            made("santext", TABLE, 2.0, calibrate="metric"),
            made("santext", np.vstack([TABLE, TABLE[:2]]), 1.0, calibrate="range"),
            made("santext", np.zeros((3, 1)), 1.0),
        ]


class TestTEM(TestSanText):
    name = "tem"

    def mechanisms(self):
        return [
            made("tem", TABLE, 3.0),
            made("tem", TABLE, 6.0, gamma=0.7, calibrate="range"),
            made("tem", TABLE, 2.0, gamma=50.0),
            made("tem", TABLE, 8.0, calibrate="metric", beta=0.05),
        ]


class TestSanTextPlus(TokenMechanismSuite):
    name = "santext_plus"

    def over(self, table, epsilon):
        return made(self.name, table, epsilon, ordinary=[])

    def mechanisms(self):
        return [
            made("santext_plus", TABLE, 3.0, ordinary=[0, 5]),
            made("santext_plus", TABLE, 1.0, ordinary=[], keep=1),
        ]


@settings(max_examples=40, deadline=None)
@given(vector_tables(), st.floats(0.05, 12), st.sampled_from(["santext", "tem"]))
def test_every_pair_loses_at_most_the_metric_epsilon_times_its_distance(table, epsilon, name):
    mechanism = made(name, table, epsilon)
    logs = np.log(mechanism.probabilities(np.arange(mechanism.size)))
    for x in range(mechanism.size):
        for y in range(mechanism.size):
            worst = float((logs[x] - logs[y]).max())
            assert worst <= mechanism.metric_epsilon * mechanism.distance(x, y) * (1 + 1e-9) + 1e-12


def test_the_metric_bound_is_near_the_rate_where_words_are_many_levels_apart():
    mechanism = made("santext", np.random.default_rng(2).normal(size=(40, 20)), 0.5, calibrate="metric")
    assert mechanism.sharpness == pytest.approx(0.5 * mechanism.diameter)
    assert 0.5 <= mechanism.metric_epsilon <= 0.52
    assert mechanism.guarantee.kind is Kind.METRIC
    assert mechanism.guarantee.metric_scale == mechanism.diameter
    assert mechanism.certificate.epsilon < mechanism.certificate.epsilon_range <= 0.5 * mechanism.diameter
    details = mechanism.parameters()
    assert details["metric_epsilon"] == mechanism.metric_epsilon
    assert details["epsilon_exact"] == mechanism.certificate.epsilon_exact


def test_the_law_is_the_published_one_up_to_the_width_of_a_level():
    table = np.random.default_rng(4).normal(size=(12, 6))
    mechanism = made("santext", table, 1.3, calibrate="metric")
    distances = np.linalg.norm(table[:, None] - table[None], axis=2)
    published = np.exp(-1.3 * distances / 2)
    published /= published.sum(axis=1, keepdims=True)
    assert np.abs(np.log(mechanism.probabilities(np.arange(12)) / published)).max() < 0.05


def test_tem_is_the_two_step_mechanism_that_was_published():
    """Far words as one candidate of score -gamma + 2 ln(number) / k, then one of them uniformly: the same law."""
    table = np.random.default_rng(6).normal(size=(10, 2))
    k, gamma = 2.0, 1.1
    mechanism = made("tem", table, k, calibrate="metric", gamma=gamma)
    distances = np.linalg.norm(table[:, None] - table[None], axis=2)
    for x, row in enumerate(mechanism.probabilities(np.arange(10))):
        near = distances[x] <= gamma
        scores = np.exp(-k * distances[x][near] / 2)
        rest = (~near).sum() * math.exp(-k * gamma / 2)
        total = scores.sum() + rest
        assert row[near] == pytest.approx(scores / total, rel=0.05)
        assert row[~near] == pytest.approx(np.full((~near).sum(), math.exp(-k * gamma / 2) / total), rel=0.05)


def test_the_published_radius_bounds_the_far_words_by_beta():
    table = np.random.default_rng(7).normal(size=(200, 10)) * 20
    mechanism = made("tem", table, 1.0, calibrate="metric", beta=0.05)
    assert mechanism.gamma == pytest.approx(2 * math.log(0.95 * 199 / 0.05))
    own = np.diag(mechanism.probabilities(np.arange(200)))
    assert (own >= 0.9).all()


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tem", {"beta": 0}, "beta must lie in"),
        ("tem", {"gamma": -1.0}, "gamma must be a distance >= 0, got -1.0"),
        ("tem", {"gamma": math.nan}, "gamma must be a distance >= 0, got nan"),
        ("santext", {"calibrate": "none"}, "calibrate must be one of exact, range, metric"),
        ("santext_plus", {"ordinary": [8]}, "ordinary must be ids in"),
        ("santext_plus", {"ordinary": [1], "keep": 2}, "keep must be a probability"),
    ],
)
def test_bad_parameters_are_refused(name, arguments, words):
    with pytest.raises(RefusedInput, match=words):
        made(name, TABLE, 1.0, **arguments)


@pytest.mark.parametrize(("far", "words"), [(3e38, "smallest weight 10 bits"), (1e307, "scale the table down")])
@pytest.mark.parametrize(("name", "more"), [("santext", {}), ("tem", {"gamma": 1e308})])
def test_a_rate_over_vast_distances_is_refused(name, more, far, words):
    """Their product is beyond what a decimal's exponential, or a double, holds."""
    table = np.array([[0.0, 1.0], [far, 0.0], [-far, 0.0], [1.0, 1.0]])
    with pytest.raises(RefusedInput, match=words):
        made(name, table, 400.0, calibrate="metric", **more)

"""Permute-and-flip: TokenMechanismSuite, and its probabilities as fractions over all orders of few words."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from privkt.plugins import get_manager
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(8).normal(size=(6, 4)).astype(np.float32)


def made(*args, **kwargs):
    return get_manager().create("mechanism", "permute_and_flip", *args, **kwargs)


class TestPermuteAndFlip(TokenMechanismSuite):
    name = "permute_and_flip"
    scale_free = True

    def over(self, table, epsilon):
        return made(table, epsilon)

    def mechanisms(self):
        return [
            made(TABLE, 3.0),
            made(TABLE, 6.0, calibrate="range"),
            made(np.vstack([TABLE, TABLE[:1]]), 1.0, utility="cosine"),
        ]


def by_subsets(chances):
    """p_y, as a sum over which other words' coins say yes: the drawn one is uniform among those kept."""
    law = []
    for y in range(len(chances)):
        others = [p for j, p in enumerate(chances) if j != y]
        total = Fraction(0)
        for size in range(len(others) + 1):
            for kept in combinations(range(len(others)), size):
                share = math.prod((p if j in kept else 1 - p) for j, p in enumerate(others))
                total += chances[y] * share / (size + 1)
        law.append(total)
    return law


def test_probabilities_are_those_of_all_orders():
    mechanism = made(TABLE, 4.0, calibrate="range")
    weights = mechanism.law.weight_rows(np.arange(6)).tolist()
    for x, row in enumerate(mechanism.probabilities(np.arange(6))):
        exact = by_subsets([Fraction(w, int(mechanism.law.weights[0])) for w in weights[x]])
        assert sum(exact) == 1
        assert np.abs(np.log(row) - np.log(np.array(exact, dtype=float))).max() <= 1e-12


@pytest.mark.parametrize("words", [300, 3000])
@pytest.mark.parametrize("sharpness", [0.2, 12.0, 40.0])
def test_the_integral_holds_for_many_words(words, sharpness):
    """All others at one distance: the number of kept ones is binomial, so the sum is known in closed form."""
    p = math.exp(-sharpness / 2)
    mechanism = made(np.eye(8)[np.minimum(np.arange(words), 1)], sharpness, calibrate="range")
    chance = mechanism.law.weights[-1] / mechanism.law.weights[0]
    assert chance == pytest.approx(p, rel=1e-3)
    own = mechanism.probabilities(np.array([0]))[0, 0]
    # E[1 / (1 + Binomial(n, c))] = (1 - (1 - c)^(n + 1)) / ((n + 1) c)
    expected = -math.expm1(words * math.log1p(-chance)) / (words * chance)
    assert own == pytest.approx(expected, rel=1e-10)


def test_it_is_no_worse_than_the_exponential_mechanism_at_the_same_sharpness():
    other = get_manager().create("mechanism", "exponential", TABLE, 4.0, calibrate="range")
    mechanism = made(TABLE, 4.0, calibrate="range")
    ids = np.arange(6)
    assert (np.diag(mechanism.probabilities(ids)) >= np.diag(other.probabilities(ids))).all()
    assert mechanism.certificate.rho >= other.certificate.rho


def test_its_loss_is_not_of_bounded_range():
    assert made(TABLE, 3.0).certificate.bounded_range is False

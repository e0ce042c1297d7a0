"""RANTEXT and the kit as published: TokenMechanismSuite, and how far what they lose exceeds what they claim."""

import math

import numpy as np
import pytest
from privkt_mechanisms.rantext import laplace_norms, noise_rate

from privkt.plugins import get_manager
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(11).normal(size=(6, 4)).astype(np.float32)


def made(*args, name="rantext", **kwargs):
    return get_manager().create("mechanism", name, *args, **kwargs)


class TestRanText(TokenMechanismSuite):
    name = "rantext"

    def over(self, table, epsilon):
        return made(table, epsilon)

    def mechanisms(self):
        return [made(TABLE, 1.0), made(TABLE, 3.0), made(np.array([[0.0], [1.0]]), 1.0)]


class TestInferDPTKit(TokenMechanismSuite):
    name = "inferdpt_kit"

    def over(self, table, epsilon):
        return made(table, epsilon, name=self.name)

    def mechanisms(self):
        return [made(TABLE, 3.0, name=self.name), made(TABLE, 10.0, name=self.name, missing=[1])]


@pytest.mark.parametrize(("epsilon", "known"), [(1.0, 1.49), (3.0, 10.05)])
def test_two_words_at_distance_one_lose_more_than_is_claimed(epsilon, known):
    """The list of x is {x} alone unless the noise reaches the other word, probability e^-Z: p(x|x') <= e^-Z / 2."""
    bound = math.log(2 * math.exp(noise_rate(epsilon)) - 1)
    assert bound == pytest.approx(known, abs=0.01)
    mechanism = made(np.array([[0.0], [1.0]]), epsilon)
    loss = mechanism.law.epsilon_exact()
    assert loss >= bound - 0.3  # 2^16 quantiles hold e^-Z = 8.6e-5 as 6 of them, ln(6 / 5.6) = 0.07
    assert loss > 1.4 * epsilon
    assert not mechanism.guarantee.is_private


def test_most_pairs_of_a_vocabulary_exceed_the_claim():
    table = np.random.default_rng(1).normal(size=(150, 8))
    with np.errstate(divide="ignore"):
        logs = np.log(made(table, 3.0).probabilities(np.arange(150)))
    with np.errstate(invalid="ignore"):
        worst = np.array([(logs[x] - logs[y])[np.isfinite(logs[x])].max() for x in range(150) for y in range(x)])
    assert (worst > 3.0).mean() > 0.5


def test_the_law_is_that_of_the_mixture_over_radii():
    mechanism = made(TABLE, 2.5)
    law, ids = mechanism.law, np.arange(6)
    levels, weights, radii = law.levelled.rows(ids), law.weights, law.radii(ids, np.arange(law.number)[None])[0]
    values, counts = np.unique(radii, return_counts=True)
    expected = np.zeros((6, 6))
    for radius, count in zip(values, counts, strict=True):
        listed = np.where(levels <= radius, weights[levels], 0)
        expected += count / len(radii) * listed / listed.sum(axis=1, keepdims=True)
    assert np.allclose(mechanism.probabilities(ids), expected, rtol=1e-9, atol=0)


def test_a_word_outside_the_kit_is_told_in_clear():
    mechanism = made(TABLE, 1.0, name="inferdpt_kit", missing=[3])
    assert (mechanism.sample_ids(np.full(50, 3)) == 3).all()
    assert mechanism.probabilities(np.array([3]))[0, 3] == 1
    assert math.isinf(mechanism.law.epsilon_exact())


def test_norms_are_those_of_laplace_noise():
    one = laplace_norms(np.array([2.0]), 0)
    assert (one > 2.0).mean() == pytest.approx(math.exp(-1), abs=1e-4)
    many = laplace_norms(np.full(100, 0.5), 0)
    assert (many**2).mean() == pytest.approx(100 * 2 * 0.25, rel=0.01)
    assert (laplace_norms(np.full(100, 0.5), 0) == many).all()

"""The noisy nearest neighbour: what it declares, and that its noise is the published one."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(12).normal(size=(6, 4)).astype(np.float32)


def made(*args, **kwargs):
    return get_manager().create("mechanism", "noisy_neighbour", *args, **kwargs)


class TestNoisyNeighbour(TokenMechanismSuite):
    name = "noisy_neighbour"

    def over(self, table, epsilon):
        return made(table, epsilon)

    def mechanisms(self):
        return [made(TABLE, 3.0), made(TABLE, 1.0, mahalanobis=1.0)]


def test_lengths_are_gamma_and_directions_have_no_side():
    mechanism = made(TABLE, 2.0)
    noise = mechanism._noise(20_000)
    lengths = np.linalg.norm(noise, axis=1)
    assert kstest(lengths, "gamma", args=(4, 0, 0.5)).pvalue >= 1e-6
    signs = (noise > 0).mean(axis=0)
    assert np.abs(signs - 0.5).max() < 0.5 * 5.2 / math.sqrt(20_000)


def test_mahalanobis_noise_has_the_shape_of_the_table():
    table = np.random.default_rng(0).normal(size=(400, 2)) * [3.0, 1.0]
    noise = made(table, 1.0, mahalanobis=1.0)._noise(20_000)
    assert noise[:, 0].std() / noise[:, 1].std() == pytest.approx(table[:, 0].std() / table[:, 1].std(), rel=0.1)


def test_little_noise_keeps_the_word_and_much_does_not():
    ids = np.arange(6).repeat(100)
    assert (made(TABLE, 400.0).sample_ids(ids) == ids).mean() > 0.99
    assert (made(TABLE, 0.5).sample_ids(ids) == ids).mean() < 0.6


def test_its_law_is_not_known():
    mechanism = made(TABLE, 1.0)
    assert mechanism.distribution(0) is None
    with pytest.raises(RefusedInput, match="its law must be sampled"):
        mechanism.probabilities(np.array([0]))
    with pytest.raises(RefusedInput, match="mahalanobis must lie in"):
        made(TABLE, 1.0, mahalanobis=1.5)

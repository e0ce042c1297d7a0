"""The soft radius: TokenMechanismSuite, and its mixture against each of its radii."""

import numpy as np
import pytest

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(9).normal(size=(7, 4)).astype(np.float32)


def made(*args, **kwargs):
    return get_manager().create("mechanism", "soft_radius", *args, **kwargs)


class TestSoftRadius(TokenMechanismSuite):
    name = "soft_radius"
    scale_free = True

    def over(self, table, epsilon):
        return made(table, epsilon)

    def mechanisms(self):
        return [made(TABLE, 3.0), made(TABLE, 2.0, radii=(0.1, 1.0), calibrate="range"), made(np.ones((2, 2)), 1.0)]


def test_it_is_the_mean_of_its_radii():
    ids = np.arange(7)
    both = made(TABLE, 4.0, radii=(0.3, 1.0), calibrate="range").probabilities(ids)
    each = [made(TABLE, 4.0, radii=(r,), calibrate="range").probabilities(ids) for r in (0.3, 1.0)]
    assert np.allclose(both, (each[0] + each[1]) / 2, rtol=1e-12, atol=0)


def test_at_the_whole_diameter_it_is_the_exponential_mechanism():
    plain = get_manager().create("mechanism", "exponential", TABLE, 4.0, calibrate="range")
    mechanism = made(TABLE, 4.0, radii=(1.0,), calibrate="range")
    assert (mechanism.probabilities(np.arange(7)) == plain.probabilities(np.arange(7))).all()


def test_far_words_are_alike_and_still_possible():
    row = made(np.arange(6.0)[:, None], 5.0, radii=(0.4,), calibrate="range").probabilities(np.array([0]))[0]
    assert row[2] == row[3] == row[5] > 0
    assert row[0] > row[1] > row[2]


@pytest.mark.parametrize("radii", [(), (0.0,), (0.5, 1.5), (float("nan"),)])
def test_radii_are_shares_of_the_diameter(radii):
    with pytest.raises(RefusedInput, match="radii must be shares of the diameter"):
        made(TABLE, 1.0, radii=radii)

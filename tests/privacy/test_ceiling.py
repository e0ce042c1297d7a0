"""The ceiling of usefulness: the figures of the page, and that randomised response attains it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.privacy import RefusedInput
from privkt.privacy.ceiling import utility_ceiling


@pytest.mark.parametrize(("epsilon", "ceiling"), [(3, 0.034), (6, 0.415), (8, 0.84)])
def test_the_figures_for_570_groups(epsilon, ceiling):
    assert utility_ceiling(epsilon, 570) == pytest.approx(ceiling, abs=5e-4)


@given(st.floats(0, 700), st.integers(1, 10**6))
def test_randomised_response_over_groups_attains_it(epsilon, groups):
    truth = 1 / (1 + (groups - 1) * math.exp(-epsilon))  # its probability of the truth, e^eps / (e^eps + m - 1)
    assert utility_ceiling(epsilon, groups) == pytest.approx(truth)
    assert 1 / groups * (1 - 1e-12) <= utility_ceiling(epsilon, groups) <= 1


def test_edges():
    assert utility_ceiling(0, 4) == 0.25
    assert utility_ceiling(math.inf, 4) == 1
    assert utility_ceiling(1, 1) == 1
    for bad in ((-1, 2), (math.nan, 2), (1, 0)):
        with pytest.raises(RefusedInput, match="must be >= 0 and groups at least 1"):
            utility_ceiling(*bad)

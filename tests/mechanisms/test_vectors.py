"""Laplace and Gaussian noise on vectors: MechanismSuite, the grid's norm, and the noise's size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privkt_mechanisms.vectors import CELLS, ClippedGrid

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.testing import MechanismSuite


def made(name, *args, **kwargs):
    return get_manager().create("mechanism", name, *args, **kwargs)


class VectorSuite(MechanismSuite):
    """One number of coarse steps: outputs are pooled to whole deviations before they are counted."""

    draws = 4000

    def inputs(self, mechanism):
        return [(0.0,) * mechanism.grid.size, (mechanism.grid.clip,) + (0.0,) * (mechanism.grid.size - 1)]

    def outsiders(self, mechanism):
        size = mechanism.grid.size
        return [self.canary, (1.0,) * (size + 1), (math.nan,) * size, None, (self.canary,) * size, 3.0]

    def cell(self, mechanism, output):
        return round(output[0] / mechanism.grid.clip * CELLS)

    def probabilities(self, mechanism, value):
        """Of stretches of a quarter clip, by the continuous law: a cell is a millionth of one."""
        import scipy.stats

        name, arguments = self.continuous(mechanism)
        centre = int(mechanism.grid.cells(value)[0])
        edges = np.arange(-12 * CELLS, 12 * CELLS + 1, CELLS // 4)
        upper = np.diff(getattr(scipy.stats, name).cdf(edges - centre, *arguments))
        return dict(enumerate(upper.tolist()))

    def test_draws_follow_the_distribution(self):
        """Kolmogorov against the continuous law: cells are a millionth of it."""
        from scipy.stats import kstest

        for mechanism in self.mechanisms():
            for value in self.inputs(mechanism):
                centre = int(mechanism.grid.cells(value)[0])
                drawn = [self.cell(mechanism, mechanism.sample(value)) - centre for _ in range(self.draws // 4)]
                assert kstest(drawn, *self.continuous(mechanism)).pvalue >= 1e-7


class TestLaplace(VectorSuite):
    name = "laplace"

    def mechanisms(self):
        return [
            made("laplace", 1.0, 1),
            made("laplace", "1/2", 1, 3.0, neighbouring="replace-one", unit="user"),
        ]

    def neighbours(self, mechanism):
        empty, full = self.inputs(mechanism)
        pairs = [(empty, full), (full, empty)]
        if mechanism.guarantee.neighbouring == "replace-one":
            other = tuple(-x for x in full)
            pairs += [(full, other), (other, full)]
        return pairs

    def continuous(self, mechanism):
        return "laplace", (0, 1 / float(mechanism.rate))


class TestGaussian(VectorSuite):
    name = "gaussian"

    def mechanisms(self):
        return [
            made("gaussian", 1.0, 1e-5, 1),
            made("gaussian", 4.0, 1e-6, 1, 3.0, neighbouring="local"),
        ]

    def neighbours(self, mechanism):
        return [tuple(self.inputs(mechanism)), tuple(reversed(self.inputs(mechanism)))]

    def continuous(self, mechanism):
        return "norm", (0, mechanism.sigma)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    st.sampled_from([1, 2]),
    st.floats(1e-3, 1e3),
)
def test_the_grid_never_exceeds_its_norm_and_keeps_directions(values, order, clip):
    cells = ClippedGrid("test", len(values), clip, order).cells(values)
    assert sum(abs(int(c)) ** order for c in cells) <= CELLS**order
    assert all(c == 0 or (c > 0) == (v > 0) for c, v in zip(cells.tolist(), values, strict=True))
    if sum(min(abs(v) / clip, 2.0) for v in values) < 1:  # then either norm is
        assert np.abs(cells / CELLS - np.array(values) / clip).max() <= 1.01 / CELLS


def test_every_number_of_a_vector_has_noise_of_its_own():
    for mechanism in (made("laplace", 0.5, 400, 2.0), made("gaussian", 0.5, 1e-5, 400, 2.0)):
        drawn = np.array(mechanism.sample(np.zeros(400)))
        assert len(set(drawn.tolist())) == 400
        spread = math.sqrt(2) / float(mechanism.rate) if mechanism.name == "laplace" else mechanism.sigma
        assert drawn.std() == pytest.approx(spread * 2.0 / CELLS, rel=0.4)


def test_replacing_takes_twice_the_noise():
    one, other = (made("gaussian", 1.0, 1e-5, 1, neighbouring=n) for n in ("zero-out", "replace-one"))
    assert other.sigma == pytest.approx(2 * one.sigma, rel=1e-3)
    one, other = (made("laplace", 1.0, 1, neighbouring=n) for n in ("zero-out", "local"))
    assert one.rate == 2 * other.rate


def test_the_gaussian_costs_what_was_asked():
    mechanism = made("gaussian", 1.0, 1e-5, 8)
    assert 0.99 < mechanism.guarantee.epsilon <= 1.0
    assert mechanism.guarantee.delta == 1e-5


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("laplace", (1.0, 0), "size must be a whole number >= 1, got 0"),
        ("laplace", (1.0, 1, math.inf), "clip must be a finite norm > 0, got inf"),
        ("gaussian", (1.0, 0.0, 1), "delta must lie in"),
        ("gaussian", (80.0, 1e-5, 1), "delta must be above"),
    ],
)
def test_bad_parameters_are_refused(name, arguments, words):
    with pytest.raises(RefusedInput, match=words):
        made(name, *arguments)

"""The noise is normal, at false-alarm rates of 1e-6 a test with fixed seeds."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from privkt.kernels import gaussian_noise

KEY = bytes(range(32))
COUNT = 1_000_000
ALARM = 1e-6
SIGMA = 2.5


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    return gaussian_noise(torch.empty(COUNT), SIGMA, KEY, step=11).numpy().astype(np.float64) / SIGMA


def test_distribution(z: np.ndarray) -> None:
    assert stats.kstest(z, "norm").pvalue > ALARM


def test_moments(z: np.ndarray) -> None:
    """Four moments, each with a quarter of the false-alarm rate; variances of z^k are (2k-1)!! - mean^2."""
    threshold = stats.norm.isf(ALARM / 8)
    for k, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs(np.mean(z**k) - mean) < threshold * math.sqrt(variance / COUNT)


def test_tails(z: np.ndarray) -> None:
    beyond = int((np.abs(z) > 4).sum())
    probability = 2 * stats.norm.sf(4)
    assert stats.binomtest(beyond, COUNT, probability).pvalue > ALARM


@pytest.mark.parametrize("lag", [1, 2, 7, 8, 512])
def test_neighbours_are_independent(z: np.ndarray, lag: int) -> None:
    """Both the values and their squares: pairs of one radius would correlate in the squares alone."""
    threshold = stats.norm.isf(ALARM / 4) / math.sqrt(COUNT - lag)
    for x in (z, z**2):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < threshold


def test_steps_are_independent(z: np.ndarray) -> None:
    other = gaussian_noise(torch.empty(COUNT), 1.0, KEY, step=12).numpy().astype(np.float64)
    assert abs(np.corrcoef(z, other)[0, 1]) < stats.norm.isf(ALARM / 2) / math.sqrt(COUNT)

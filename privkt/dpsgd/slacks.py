"""What an accountant does not know of: rounding of rows, and the noise sampler's distance from a Gaussian."""

from __future__ import annotations

import math
from typing import Any

from privkt import kernels
from privkt.privacy import accounting

_CROSS_SAMPLE, _CROSS_SAMPLE_A_ROW = 2.0**-10, 2.0**-21
# The part of a sampler's distance that is not a set of exact sums: csrc/include/privkt/gaussian.h, and all of it for
# discrete noise (docs/proofs/discrete_gaussian.md, 7).
_NOT_OF_THE_SUM = {"discrete": 1.0}
_NOT_OF_THE_SUM_ELSEWHERE = 2.0**-26


def cross_sample_slack(batch_size: int) -> float:
    """What one record's presence may move the rounding of all other rows of its batch by, in units of the clip norm.

    About 2e-7 a row, if all errors point one way; twice the expected batch is room for a large draw
    (docs/proofs/dpsgd.md, "Rounding").
    """
    return max(_CROSS_SAMPLE, batch_size * _CROSS_SAMPLE_A_ROW)


def variation_per_coordinate(noise: str) -> float:
    """Total variation between one sampled value of this kind of noise and one of the mechanism that is accounted."""
    return kernels.discrete_tv_per_coordinate() if noise == "discrete" else kernels.gaussian_tv_per_coordinate()


def sampler_slack(sampler: float, epsilon: float, noise: str = "gaussian") -> float:
    """What the sampler takes from delta at `epsilon`, of its total variation over a whole training.

    It counts once, but for what is not a set of exact sums, 2^-26 of it or all where noise is discrete, which counts
    e^epsilon times as well (docs/proofs/dpsgd.md, "Noise").
    """
    return sampler * (1 + _NOT_OF_THE_SUM.get(noise, _NOT_OF_THE_SUM_ELSEWHERE) * math.exp(min(epsilon, 700.0)))


def replace_one_epsilon(event: Any, delta: float, slack_delta: float, sampler: float, noise: str = "gaussian") -> float:
    """Epsilon at `delta` for replacing a record; its own slack where that is larger, infinity where it takes all."""
    found = accounting.replace_one_epsilon(event, delta - slack_delta)
    while sampler_slack(sampler, found, noise) > slack_delta:
        slack_delta = 1.01 * sampler_slack(sampler, found, noise)
        if slack_delta >= delta:
            return math.inf
        found = accounting.replace_one_epsilon(event, delta - slack_delta)
    return found

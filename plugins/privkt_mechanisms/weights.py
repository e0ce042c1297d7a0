"""Integer weights of levels, and what a law of such weights costs whatever its input is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from privkt.privacy.weights import WeightTable
from privkt_mechanisms.byte_table import Integers


def decaying_weights(sharpness: float, last: int, words: int, reach: int | None = None) -> Integers:
    """Weights exp(-sharpness/2 min(t / reach, 1)), rounded, of the levels t = 0..last; `reach` is `last` if left out.

    Guarantee: `epsilon_range` of them is at most `sharpness`, exactly; the weights never grow with the level.
    Raises: RefusedInput, for a sharpness that leaves the smallest of `words` weights fewer than 10 bits.
    """
    steps = last if reach is None else min(reach, last)
    near = WeightTable.decaying(Fraction(sharpness) / 2 / max(steps, 1), steps, words).weights
    # the largest a power of two, for coins of so many bits; rounding up keeps every ratio to it within what it was
    top = 1 << near[0].bit_length() - 1
    near = tuple(-(-weight * top // near[0]) for weight in near)
    return np.pad(np.array(near, dtype=np.int64), (0, last - steps), mode="edge")


def epsilon_range(weights: Integers) -> float:
    """2 ln(largest / smallest), rounded up: the bound of exponential laws of these weights, for any two inputs."""
    return WeightTable((int(weights.max()), int(weights.min())), 1).eps_range

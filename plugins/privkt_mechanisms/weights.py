"""Integer weights of levels, and what a law of such weights costs whatever its input is."""

from __future__ import annotations

import decimal
import math

import numpy as np
from numpy.typing import NDArray

from privkt.privacy import RefusedInput
from privkt_mechanisms.byte_table import Integers

_USUAL_BITS, _MOST_TOTAL_BITS, _FINE_BITS = 30, 62, 10


def integer_weights(subject: str, exponents: NDArray[np.floating], size: int) -> Integers:
    """w[t] = the integer above 2^bits exp(-exponents[t]): w[0] = 2^bits, none is below 1.

    Shapes: exponents [last + 1], from 0 on and never falling. `size` words of the largest weight stay below 2^62.
    Guarantee: w[0] / w[t] <= exp(exponents[t]); the weights never rise.
    Raises: RefusedInput, for exponents that so many bits cannot hold.
    """
    most = _MOST_TOTAL_BITS - 1 - size.bit_length()
    steepest = float(exponents[-1])
    if not 0 <= steepest <= most * math.log(2):
        raise RefusedInput(
            f"{subject}: weights of {size} words must fit {most} bits, an epsilon_range of at most "
            f"{2 * most * math.log(2):.1f}, got {2 * steepest:.1f}; ask for a smaller epsilon"
        )
    bits = min(most, max(_USUAL_BITS, math.ceil(steepest / math.log(2)) + _FINE_BITS))
    top = 1 << bits
    # exp is wrong by a unit or two in its last place: the factor and the ceiling keep each weight above the real one
    weights = np.ceil(np.exp(-exponents) * (1 + 2.0**-48) * top)
    return np.clip(weights, 1, top).astype(np.int64)


def epsilon_range(weights: Integers) -> float:
    """2 ln(largest / smallest), rounded up: the bound of exponential laws of these weights, for any two inputs."""
    with decimal.localcontext(decimal.Context(prec=60, rounding=decimal.ROUND_CEILING)):
        ratio = decimal.Decimal(int(weights.max())) / decimal.Decimal(int(weights.min()))
        exact = 2 * ratio.ln().next_plus() if ratio > 1 else decimal.Decimal(0)
    near = float(exact)
    return near if decimal.Decimal(near) >= exact else math.nextafter(near, math.inf)

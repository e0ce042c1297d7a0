"""Exact sampling: probabilities as fractions and big integers, from one source of uniform integers.

References: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", Algorithms 1 and 2.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from fractions import Fraction

from privkt.privacy import RefusedInput

Below = Callable[[int], int]
"""A uniform integer in [0, n), like `secrets.randbelow`."""

WEIGHT_ONE = 1 << 64
_LARGEST_EPSILON = 500
_DIGITS = 320  # 2^64 e^500 has 237


def epsilon_of(subject: str, epsilon: Fraction | int | float | str) -> Fraction:
    """An epsilon as an exact fraction: 0.1 is the binary number it is stored as, "1/10" the tenth.

    Raises: RefusedInput, unless it is a finite number in (0, 500].
    """
    try:
        exact = Fraction(epsilon) if not isinstance(epsilon, bool) else None
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        exact = None
    if exact is None or not 0 < exact <= _LARGEST_EPSILON:
        raise RefusedInput(
            f"{subject}: epsilon must be a finite number > 0 and at most {_LARGEST_EPSILON}, got {epsilon!r}; "
            "write a number or a fraction such as '1/2'"
        )
    return exact


def rounded_up(exact: Fraction) -> float:
    """The smallest float that is not below a fraction."""
    near = float(exact)
    return near if Fraction(near) >= exact else math.nextafter(near, math.inf)


def shown(exact: Fraction) -> float | str:
    """A fraction for a card: a float where that is exactly it, else "numerator/denominator"."""
    return float(exact) if Fraction(float(exact)) == exact else str(exact)


def exponential_weight(epsilon: Fraction) -> int:
    """The largest integer we can certify to be at most 2^64 e^epsilon.

    Guarantee: 1 <= exponential_weight(e) / 2^64 <= exp(e), whatever the rounding in between.
    """
    with decimal.localcontext(decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_FLOOR)):
        below = decimal.Decimal(epsilon.numerator) / decimal.Decimal(epsilon.denominator)
        # exp is rounded half-even whatever the context says: one step down makes it a lower bound.
        return max(WEIGHT_ONE, int(below.exp().next_minus() * WEIGHT_ONE))


def bernoulli(probability: Fraction, below: Below) -> bool:
    """True with exactly this probability, in [0, 1]."""
    return below(probability.denominator) < probability.numerator


def bernoulli_exp(gamma: Fraction, below: Below) -> bool:
    """True with probability exp(-gamma) exactly, gamma >= 0 (Algorithm 1)."""
    while gamma > 1:
        if not _bernoulli_exp_of_unit(Fraction(1), below):
            return False
        gamma -= 1
    return _bernoulli_exp_of_unit(gamma, below)


def _bernoulli_exp_of_unit(gamma: Fraction, below: Below) -> bool:
    k = 1
    while bernoulli(gamma / k, below):
        k += 1
    return k % 2 == 1


def discrete_laplace(rate: Fraction, below: Below) -> int:
    """An integer x with probability proportional to exp(-rate |x|) exactly, rate > 0 (Algorithm 2).

    Edge cases: the number of trials is random and depends on the noise alone, never on a private value.
    """
    s, t = rate.numerator, rate.denominator
    while True:
        u = below(t)
        if not bernoulli_exp(Fraction(u, t), below):
            continue
        v = 0
        while bernoulli_exp(Fraction(1), below):
            v += 1
        magnitude = (u + t * v) // s
        negative = below(2) == 1
        if negative and magnitude == 0:
            continue  # zero must not be counted twice
        return -magnitude if negative else magnitude

"""The discrete Gaussian's truth: Canonne, Kamath and Steinke's algorithms in Python's integers.

A coordinate's uniform real numbers come from ChaCha20, 32 binary places at a time, as discrete_gaussian.h says.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import floor

import numpy as np
from torch import Tensor

from privkt.kernels.reference_noise import chacha20

DISCRETE_BLOCK = 1 << 62
COORDINATE_BITS = 46


def words(key: bytes, step: int, coordinate: int) -> Iterator[int]:
    """The coordinate's own words of 32 bits, without end."""
    number = 0
    while True:
        block = DISCRETE_BLOCK | (number % 2**16) << COORDINATE_BITS | coordinate
        inputs = [block % 2**32, block >> 32, step % 2**32, step >> 32]
        yield from chacha20(key, np.array(inputs, np.uint32)[:, None])[:, 0].tolist()
        number += 1


def bernoulli(a: int, b: int, source: Iterator[int]) -> bool:
    """True with probability a/b: a uniform real number, as many digits as it takes, is below a/b."""
    if a >= b:
        return True
    while a > 0:
        a = (a << 32) - next(source) * b
        if a >= b:
            return True
    return False


def bernoulli_exp(a: int, b: int, source: Iterator[int]) -> bool:
    """True with probability exp(-a/b), 0 <= a <= b (Algorithm 1)."""
    k = 1
    while bernoulli(a, b * k, source):
        k += 1
    return k % 2 == 1


def below(t: int, source: Iterator[int]) -> int:
    """Uniform in [0, t), from words of 64 bits (D. Lemire 2019)."""
    while True:
        product = (next(source) | next(source) << 32) * t
        if product % 2**64 >= 2**64 % t:
            return product >> 64


def draw(sigma: float, source: Iterator[int]) -> int:
    """One integer of the discrete Gaussian (Algorithm 3, on Algorithm 2 with scale t)."""
    exact = Fraction(sigma)
    t = floor(exact) + 1
    while True:
        u = below(t, source)
        if not bernoulli_exp(u, t, source):
            continue
        v = 0
        while bernoulli_exp(1, 1, source):
            v += 1
        negative = next(source) % 2 == 1
        magnitude = u + t * v
        if negative and magnitude == 0:
            continue
        # gamma = (magnitude - sigma^2 / t)^2 / (2 sigma^2), over one denominator that fractions would shorten
        unit, numerator = exact.denominator, exact.numerator
        a, b = (magnitude * t * unit**2 - numerator**2) ** 2, 2 * (numerator * t * unit) ** 2
        accepted = True
        while accepted and a >= b:
            accepted = bernoulli_exp(1, 1, source)
            a -= b
        if accepted and bernoulli_exp(a, b, source):
            return -magnitude if negative else magnitude


def discrete_gaussian_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    out.zero_()
    add_discrete_gaussian_(out, sigma, key, step, offset)


def add_discrete_gaussian_(total: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    if sigma == 0:
        return
    secret = bytes(key.tolist())
    drawn = [draw(sigma, words(secret, step % 2**64, offset + i)) for i in range(len(total))]
    total += total.new_tensor(drawn)

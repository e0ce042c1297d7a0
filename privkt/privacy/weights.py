"""Integer weights of the exponential mechanism, and the two certificates that follow from them; no torch here.

**Range bound** (`eps_range`): 2 ln(largest weight / smallest). It holds between any two inputs whatever, since every
input gives every output of the same public list a weight between the two. **Exact** (`exact_epsilon`): the largest
ln p(y|x) - ln p(y|x') over the rows x, x' of one static table, enumerated. The two are never mixed: each says what
inputs it covers.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from privkt.privacy.errors import RefusedInput

MOST_TOTAL = 2**62
MOST_LEVEL = 2**15 - 1
_NARROW = 2**31 - 1
_USUAL = 2**30  # a power of two, for which a coin is as many bits
_LEAST_PRECISE = 2**10  # a smallest weight below this is rounded by more than a thousandth
_DIGITS = 60
_SHOWN = Fraction(10**300)  # in messages: nearly the largest double
LOG_UNIT = 2**24
_LOG_SLACK = 2  # units: floor_logs(v) <= LOG_UNIT ln v <= floor_logs(v) + 2


@dataclass(frozen=True)
class WeightTable:
    """weights[t] is the weight of an output at level t, an integer >= 1 that never grows with t, of `words` outputs.

    Guarantee: between any two inputs, pure epsilon `eps_range`, whatever made the levels (docs/proofs/exponential.md).
    Raises: RefusedInput for a weight below 1, one that grows with its level, or words * weights[0] not below 2^62.
    """

    weights: tuple[int, ...]
    words: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.weights) <= MOST_LEVEL + 1:
            raise RefusedInput(
                f"WeightTable: weights must be 1 to {MOST_LEVEL + 1} integers, got {len(self.weights)}; "
                "choose a coarser resolution"
            )
        for level, weight in enumerate(self.weights):
            if type(weight) is not int or weight < 1:
                raise RefusedInput(f"WeightTable: weights must be integers >= 1, got {weight!r} at level {level}")
        grows = next((t for t, (a, b) in enumerate(zip(self.weights, self.weights[1:], strict=False)) if b > a), None)
        if grows is not None:
            raise RefusedInput(
                f"WeightTable: weights must not grow with the level, got {self.weights[grows]} then "
                f"{self.weights[grows + 1]} from level {grows} on; order them by utility"
            )
        if self.words < 1 or self.words * self.weights[0] >= MOST_TOTAL:
            raise RefusedInput(
                f"WeightTable: words times the largest weight must be below 2^62, got {self.words} * "
                f"{self.weights[0]}; use fewer bits"
            )

    @classmethod
    def exponential(cls, epsilon: Fraction | float, last: int, words: int) -> WeightTable:
        """Weights exp(-epsilon/2 t/last) of the levels t = 0..last, so that eps_range is at most `epsilon`.

        Units: 30 bits where they give every weight 10 bits or more, else as many as `words` allow.
        Guarantee: eps_range <= epsilon, exactly: the weights are rounded, the ratio of the outermost is certified.
        Raises: RefusedInput where the smallest weight would have fewer than 10 bits.
        """
        exact = Fraction(epsilon)
        if not exact > 0:
            raise RefusedInput(f"WeightTable: epsilon must be above 0, got {epsilon}; state the budget of one token")
        return cls.decaying(exact / 2 / max(last, 1), last, words)

    @classmethod
    def decaying(cls, rate: Fraction | float, last: int, words: int) -> WeightTable:
        """Weights exp(-rate t), rounded, of the levels t = 0..last; eps_range is at most 2 rate last, exactly.

        Units: the largest is a power of two.
        """
        exact = Fraction(rate)
        if not exact >= 0 or not 0 <= last <= MOST_LEVEL or words < 1:
            raise RefusedInput(
                f"WeightTable: rate must not be negative, last be in [0, {MOST_LEVEL}] and words at least 1, "
                f"got {rate}, {last} and {words}"
            )
        wide = 1 << ((MOST_TOTAL - 1) // words).bit_length() - 1
        largest = min(_USUAL, wide)
        least = _least(largest, exact * last)
        if least < _LEAST_PRECISE and largest < wide:
            largest, least = wide, _least(wide, exact * last)
        if least < _LEAST_PRECISE:
            raise RefusedInput(
                "WeightTable: epsilon must leave the smallest weight 10 bits, got a range of "
                f"{float(min(2 * exact * last, _SHOWN)):.4g} for {words} words; lower epsilon"
            )
        weights = []
        with decimal.localcontext(decimal.Context(prec=_DIGITS)):
            factor = (-decimal.Decimal(exact.numerator) / decimal.Decimal(exact.denominator)).exp()
            here = decimal.Decimal(largest)
            for _ in range(last + 1):
                weights.append(max(int(here), least))
                here *= factor
        weights[last] = least if last else largest
        return cls(tuple(weights), words)

    @property
    def eps_range(self) -> float:
        """2 ln(largest / smallest), rounded up: pure epsilon between any two inputs."""
        ratio = Fraction(self.weights[0], self.weights[-1])
        if ratio == 1:
            return 0.0
        with decimal.localcontext(decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_CEILING)):
            above = decimal.Decimal(ratio.numerator) / decimal.Decimal(ratio.denominator)
            bound = Fraction(2 * above.ln().next_plus())  # ln is rounded to nearest whatever the context says
        near = float(bound)
        return near if Fraction(near) >= bound else math.nextafter(near, math.inf)

    @property
    def rho_range(self) -> float:
        """eps_range^2 / 8, rounded up: zCDP of a bounded-range mechanism, for any two inputs."""
        return math.nextafter(math.nextafter(self.eps_range**2, math.inf) / 8, math.inf) if self.eps_range else 0.0

    @property
    def narrow(self) -> bool:
        """Whether 32 bits hold every weight."""
        return self.weights[0] <= _NARROW

    def array(self) -> NDArray[np.signedinteger]:
        """The weights as kernels take them: int32 where they fit, else int64."""
        return np.array(self.weights, np.int32 if self.narrow else np.int64)


def _least(largest: int, range_half: Fraction) -> int:
    """The least integer m >= 1 of which we can certify largest / m <= exp(range_half)."""
    if range_half >= MOST_TOTAL.bit_length():  # e^n > 2^n is above any weight; and no decimal holds e^(10^7)
        return 1
    with decimal.localcontext(decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_CEILING)):
        # a lower bound of exp(range_half), then everything rounded up
        with decimal.localcontext(decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_FLOOR)):
            grown = (decimal.Decimal(range_half.numerator) / decimal.Decimal(range_half.denominator)).exp().next_minus()
            grown = max(grown, decimal.Decimal(1))
        quotient = decimal.Decimal(largest) / grown
        return max(1, min(largest, int(quotient.to_integral_value(decimal.ROUND_CEILING))))


def floor_logs(values: Iterable[int] | NDArray[np.int64]) -> NDArray[np.int32]:
    """Integers n with n <= 2^24 ln v <= n + 2, for v in [1, 2^62]: logarithms whose rounding is known.

    float64 knows v to 2^-53 and numpy's log is within 4 units in the last place: together far below half a unit here.
    """
    logs = np.log(np.asarray(values, np.float64)) * LOG_UNIT
    return np.maximum(np.floor(logs - 0.5), 0).astype(np.int32)


def exact_epsilon(most: Sequence[int], least: Sequence[int]) -> float:
    """eps*, rounded up: pure epsilon for inputs that are rows of the enumerated table, and for no others.

    Units: most[y] and least[y] are the extremes over inputs x of floor_logs(weight of (x, y)) - floor_logs(sum of x).
    Guarantee: at least max over y, x, x' of ln p(y|x) - ln p(y|x'), and above it by at most 2^-21.
    """
    spread = max(int(a) - int(b) for a, b in zip(most, least, strict=True))
    if spread < 0:
        raise RefusedInput(f"exact_epsilon: most must not be below least, got a spread of {spread}; swap them")
    # either logarithm of either probability is up to 2 units above its floor
    return (spread + 2 * _LOG_SLACK) / LOG_UNIT

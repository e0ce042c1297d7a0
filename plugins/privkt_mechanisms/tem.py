"""TEM: the exponential mechanism on distances cut off at a radius."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from privkt.privacy import RefusedInput
from privkt_mechanisms.metric import MetricMechanism


class TEM(MetricMechanism):
    """Draws word y for word x with probability proportional to exp(-k min(d(x, y), gamma) / 2), over all words.

    `gamma`: a public distance; half the diameter where left out, and with `calibrate="metric"`, where `epsilon` is k,
    the published (2 / k) ln((1 - beta) (V - 1) / beta): farther words are drawn with probability beta at most.
    `timing`: that of `Exponential`.
    Guarantee: metric: k min(d, gamma) plus what rounding adds; pure epsilon `certificate.epsilon` for any two words
        (docs/proofs/tokens.md). Drawing one far word uniformly, as published, is the same law as the cut-off.
    Edge cases: a gamma beyond the diameter cuts nothing off: the law of `santext`.
    References: Carvalho, Vasiloudis, Feyisetan, Wang 2023, "TEM: High Utility Metric Differential Privacy on Text".
    """

    name = "tem"

    def __init__(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        *,
        calibrate: str = "exact",
        gamma: float | None = None,
        beta: float = 0.001,
        timing: str = "fast",
    ) -> None:
        if not 0 < beta < 1:
            raise RefusedInput(f"{self.name}: beta must lie in (0, 1), got {beta!r}; 0.001 is usual")
        if gamma is None and calibrate == "metric":
            words = len(np.asarray(table))
            gamma = max(0.0, 2 / float(epsilon) * math.log((1 - beta) * max(1, words - 1) / beta))
        self._set_up(table, epsilon, calibrate, gamma, 0.5, timing)

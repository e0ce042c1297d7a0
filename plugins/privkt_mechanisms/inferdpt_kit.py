"""The form in which RANTEXT is used in public kits: cosine lists, and words outside the kit's vocabulary in clear."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from privkt_mechanisms.byte_table import Floats, Ids, Integers, LevelledTable, Levels, byte_table, levels_up_to
from privkt_mechanisms.calibration import asked
from privkt_mechanisms.keeping import KeepingLaw, word_mask
from privkt_mechanisms.rantext import REASON, ListLaw
from privkt_mechanisms.unproven import Unproven
from privkt_mechanisms.weights import decaying_weights

_NOISES, _MOST_CELLS = 1 << 12, 1 << 22


class InferDPTKit(Unproven):
    """Candidates are the words of at least the cosine that the word's vector has with itself under Laplace noise.

    Noise has scale 2 (range of the coordinate) / epsilon; a candidate has weight exp(epsilon cos / 2). Noises are 2^12
    vectors (fewer for long ones) drawn once from the public `seed`, so that the law is known. Words of the public list
    `missing` are not in the kit's vocabulary and come out as they are.
    Guarantee: none: the list depends on the private word, and missing words are told in clear. For comparison.
    References: Tong et al. 2023, "InferDPT", as implemented in public federated-learning kits.
    """

    name = "inferdpt_kit"
    reason = f"{REASON}, and words outside the kit's vocabulary come out as they are"

    def __init__(
        self, table: ArrayLike, epsilon: Fraction | float | str, *, missing: ArrayLike = (), seed: int = 0
    ) -> None:
        self.epsilon, self.calibrate = asked(self.name, epsilon, "range"), "none"
        self.sharpness = self.epsilon
        self.table = byte_table(self.name, table, cosine=True)
        self.size = self.table.size
        vectors = np.asarray(table, dtype=np.float64)
        number = max(64, min(_NOISES, _MOST_CELLS // vectors.shape[1]))
        noise = np.random.default_rng(seed).laplace(size=(number, vectors.shape[1]))
        noise *= 2 * np.ptp(vectors, axis=0) / self.epsilon
        squares = (noise**2).sum(axis=1)
        # 1 - cos is half the square of the distance of unit vectors; the farthest are 2 apart
        levels = levels_up_to(max(self.table.extremes[1], 1), root=False)
        unit = self.table.scale**2

        radii = _Reach(vectors, noise, squares, levels, unit)
        steepest = self.epsilon / 2 * levels.last * 2.0**levels.shift / unit
        weights = decaying_weights(steepest, levels.last, self.size)
        law = ListLaw(LevelledTable(self.table, levels), weights, radii, number)
        self.missing = word_mask(self.name, "missing", missing, self.size)
        self.law = KeepingLaw(law, self.missing, Fraction(1))

    def parameters(self) -> Mapping[str, Any]:
        return {**super().parameters(), "missing": int(self.missing.sum())}


@dataclasses.dataclass(frozen=True, eq=False)
class _Reach:
    """The levels that the cosines of words with themselves under noises come to."""

    vectors: Floats
    noise: Floats
    squares: Floats
    levels: Levels
    unit: float

    def __call__(self, ids: Ids, which: Integers) -> Integers:
        own = self.vectors[ids]
        whole = which.shape[1] == len(self.noise)
        products = own @ self.noise.T if whole else (own * self.noise[which[:, 0]]).sum(axis=1, keepdims=True)
        cosines = _cosines((own**2).sum(axis=1, keepdims=True), products, self.squares[which])
        return self.levels.of(np.rint(2 * self.unit * (1 - cosines)).astype(np.int64))


def _cosines(own: Floats, products: Floats, noises: Floats) -> Floats:
    """cos(v, v + n) from |v|^2, <v, n> and |n|^2; 0 for vectors of zeros."""
    lengths = np.sqrt(own) * np.sqrt(np.maximum(own + 2 * products + noises, 0))
    return np.clip(np.divide(own + products, lengths, out=np.zeros_like(products), where=lengths > 0), -1, 1)

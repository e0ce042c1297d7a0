"""SANTEXT as published: the table of all probabilities, made once, and one row of it for every token."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..cases import Case, World
from .base import Contender

_MOST_BYTES = 2 << 30


class SanTextTable(Contender):
    """softmax(-rate distance) of every word, V x V float64, and `numpy.random.choice` with a row.

    The authors' code is no package; these are its two steps.
    References: Yue et al. 2021, "Differential Privacy for Text Analytics via Natural Text Sanitization", Algorithm 1.
    """

    name = "SanText: table of V x V"
    guarantee = "metric, claimed by the paper; float64, numpy's generator"
    tokens = 256

    @classmethod
    def absent(cls, case: Case) -> str | None:
        needed = 8 * case.words**2
        if needed > _MOST_BYTES:
            return f"its table takes {needed / 2**30:.0f} GiB"
        return super().absent(case)

    def __init__(self, world: World) -> None:
        from scipy.special import softmax
        from sklearn.metrics.pairwise import euclidean_distances

        vectors = world.vectors.double().numpy()
        self.chances = softmax(euclidean_distances(vectors) * -world.rate, axis=1)

    def draw(self, ids: Tensor) -> list[int]:
        return [int(np.random.choice(len(self.chances), p=self.chances[x])) for x in ids.tolist()]

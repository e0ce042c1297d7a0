"""mldp-text (PyPI): one word at a time through `replace_word`."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..cases import World
from .base import Contender

BETA = 0.001  # its own


def keyed(world: World) -> Any:
    """The table as gensim's vectors; word i is called by its number."""
    from gensim.models import KeyedVectors

    table = KeyedVectors(world.vectors.shape[1])
    table.add_vectors([str(i) for i in range(world.words)], world.vectors.numpy())
    return table


class _Mldp(Contender):
    package = "mldp_text"
    kind: str

    def __init__(self, world: World) -> None:
        import faiss
        import mldp_text

        faiss.omp_set_num_threads(1)
        table = keyed(world)
        self.mechanism = mldp_text.get_mechanism(
            self.kind,
            epsilon=2 * world.rate,  # nats a unit of distance
            embedding_matrix=table,
            dim=world.vectors.shape[1],
            vocab=set(table.key_to_index),
        )

    def draw(self, ids: Tensor) -> list[int]:
        return [int(self.mechanism.replace_word(str(x))) for x in ids.tolist()]


class MldpTEM(_Mldp):
    """Its truncated exponential mechanism."""

    name = "mldp-text: TEM"
    kind = "tem"
    guarantee = "metric, claimed by the paper; float64, numpy's generator"
    stated = "truncated exponential"
    tokens = 4
    choices, probe_epsilon = 200_000, 32.8

    def radius(self, world: World) -> float:
        return round(math.log((1 - BETA) * world.words / BETA) / world.rate, 1)


class MldpMultivariate(_Mldp):
    """The nearest word to the vector plus noise, by an approximate index (faiss IVF), its default."""

    name = "mldp-text: multivariate"
    kind = "multivariate_calibrated"
    guarantee = "metric, claimed by the paper; float64, numpy's generator, approximate neighbours"
    stated = "the nearest word to a noisy vector"
    tokens = 4

"""pypantera (PyPI, imported as `src`): texts through `processText`, here of one word each."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from ..cases import Case, World
from .base import Contender


def words_file(world: World) -> Path:
    """The table in the form it reads: a word and its numbers a line."""
    file = world.folder / "words.txt"
    with file.open("w", encoding="utf-8") as lines:
        for i, row in enumerate(world.vectors.tolist()):
            lines.write(f"{i} {' '.join(f'{value:.6g}' for value in row)}\n")
    return file


BETA = 0.001  # what its page recommends


class PypanteraSanText(Contender):
    """SANTEXT without a table: all distances of the words of one text, softmax, `numpy.random.choice`."""

    name = "pypantera: SanText"
    package = "pypantera"
    guarantee = "metric, claimed by the paper; float, numpy's generator"
    tokens = 2
    has_processes = True

    @classmethod
    def absent(cls, case: Case) -> str | None:
        # what its wheel installs is called `src`, of which there may be others
        names = ("src", "src.SamplingPerturbationMechanism")
        return None if all(map(importlib.util.find_spec, names)) else "pypantera is not installed"

    @classmethod
    def prepare(cls, world: World) -> None:
        words_file(world)

    def __init__(self, world: World) -> None:
        from src.SamplingPerturbationMechanism.santext import SanText

        self.mechanism: Any = SanText({"embPath": str(world.folder / "words.txt"), "epsilon": 2 * world.rate})

    def draw(self, ids: Tensor) -> list[int]:
        return [int(self.mechanism.processText([str(x)])) for x in ids.tolist()]


class PypanteraTEM(PypanteraSanText):
    """Its truncated exponential mechanism, with noise for one word after the other."""

    name = "pypantera: TEM"
    stated = "truncated exponential"
    choices, probe_epsilon = 200_000, 32.8

    def __init__(self, world: World) -> None:
        from src.SamplingPerturbationMechanism.tem import TEM

        self.mechanism = TEM({"embPath": str(world.folder / "words.txt"), "epsilon": 2 * world.rate, "beta": BETA})

    def radius(self, world: World) -> float:
        return math.log((1 - BETA) * (world.words - 1) / BETA) / world.rate

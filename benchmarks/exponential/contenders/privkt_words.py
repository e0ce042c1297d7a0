"""privkt's kernels: vectors by streaming, ids by a list of neighbours, and the product alone as the floor."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from privkt import kernels
from privkt.privacy.weights import WeightTable, exact_epsilon, floor_logs

from ..cases import RESOLUTION, World
from .base import Chooser, Contender

AT_ONCE = 480  # queries that the kernel takes at a time: no more need be held in int8, and equal parts hold least
EXACT = "pure, proven and certified; integers, ChaCha20"


class Law:
    """A table in int8, its levels and their integer weights."""

    def __init__(self, vectors: Tensor, diameter: float, epsilon: float) -> None:
        self.table = kernels.byte_table(vectors)
        self.levels = kernels.Levels(min(int(diameter * self.table.scale), RESOLUTION))
        self.plan = WeightTable.exponential(epsilon, self.levels.last, len(vectors))
        self.weights = torch.from_numpy(self.plan.array())

    @classmethod
    def of(cls, world: World) -> Law:
        return cls(world.vectors, world.diameter, world.epsilon)

    @classmethod
    def of_utilities(cls, utilities: Sequence[float], epsilon: float) -> Law:
        """Words on a line, as far from 0 as their utilities are below 1; the first is at 0."""
        places = (1 - torch.tensor(utilities, dtype=torch.float64)).mul(127).round().float()
        return cls(places[:, None], 127.0, epsilon)


class Streaming(Contender):
    """Any vectors: all distances, exactly, and one integer a token."""

    name = "privkt: vectors, streaming"
    guarantee = EXACT

    def __init__(self, world: World) -> None:
        self.vectors, self.law = world.vectors, Law.of(world)

    def inputs(self, ids: Tensor) -> Tensor:
        return self.vectors[ids]

    def draw(self, tokens: Tensor) -> Tensor:
        law, key, drawn, place = self.law, kernels.new_key(), [], 0
        for part in tokens.tensor_split(-(-len(tokens) // AT_ONCE)):
            queries = kernels.quantised(law.table, part)
            drawn.append(kernels.draw_words(law.table, law.levels, law.weights, key, 0, place, queries=queries))
            place += len(part)
        return torch.cat(drawn)

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser | None:
        law = Law.of_utilities(utilities, epsilon)

        def choose(number: int) -> np.ndarray:
            queries = kernels.quantised(law.table, torch.zeros(number, 1))
            return kernels.draw_words(law.table, law.levels, law.weights, kernels.new_key(), 0, queries=queries).numpy()

        return choose


class StreamingAVX2(Streaming):
    """The same where the processor had nothing newer."""

    name = "privkt: vectors, streaming, AVX2 alone"
    environment: ClassVar[dict[str, str]] = {"PRIVKT_CPU_ISA": "avx2"}


class Listed(Contender):
    """Ids of the table: proposals from a list of neighbours and a uniform tail, refused exactly."""

    name = "privkt: ids, list of neighbours"
    guarantee = EXACT
    tokens = 1 << 16
    tails = 1 << 15

    def __init__(self, world: World) -> None:
        self.set_up(Law.of(world))

    def set_up(self, law: Law) -> None:
        self.law, self.near = law, kernels.neighbours(law.table)

    def draw(self, tokens: Tensor) -> Tensor:
        law = self.law
        return kernels.draw_words_near(law.table, self.near, law.levels, law.weights, tokens, kernels.new_key(), 0)

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser:
        made = cls.__new__(cls)
        made.set_up(Law.of_utilities(utilities, epsilon))
        return lambda number: made.draw(torch.zeros(number, dtype=torch.int64)).numpy()


class FixedTime(Listed):
    """The same with a number of rounds that no token changes."""

    name = "privkt: ids, fixed time"
    tokens = 1 << 13
    tail_choices, tails = 500, 1 << 9  # of more equal words the rounds are refused as too many

    def set_up(self, law: Law) -> None:
        super().set_up(law)
        self.rounds = kernels.fixed_time(self.law.table, self.near, self.law.levels, self.law.weights)

    def draw(self, tokens: Tensor) -> Tensor:
        law = self.law
        key = kernels.new_key()
        return kernels.draw_words_near(law.table, self.near, law.levels, law.weights, tokens, key, 0, fixed=self.rounds)


class Nearest(Streaming):
    """Products and the nearest word, without a draw: what streaming cannot be faster than."""

    name = "privkt: nearest word only (no draw)"
    guarantee = "none: nothing is drawn"
    stated = "none"

    def draw(self, tokens: Tensor) -> Tensor:
        return kernels.nearest_words(self.law.table, 1, queries=kernels.quantised(self.law.table, tokens))[0][:, 0]

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser | None:
        return None


def certificates(world: World) -> dict[str, float]:
    """Both certificates of a table, and the seconds of each part of its set-up: processor time, or the wall's.

    `all_cores_seconds` is the wall's time of index and certificate with every core of the machine.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    found = _parts(world, time.process_time)
    try:
        torch.set_num_threads(cores)
        again = _parts(world, time.perf_counter)
    finally:
        torch.set_num_threads(threads)
    return found | {
        "all_cores": cores,
        "all_cores_seconds": round(again["index_seconds"] + again["certificate_seconds"], 3),
    }


def _parts(world: World, now: Callable[[], float]) -> dict[str, float]:
    marks = [now()]
    law = Law.of(world)
    marks.append(now())
    index = kernels.table_index(law.table)
    marks.append(now())
    totals = kernels.table_totals(law.table, law.levels, law.weights)
    logs = floor_logs(law.plan.weights).tolist(), floor_logs(totals.numpy()).tolist()
    exact = exact_epsilon([kernels.largest_spread(law.table, index, law.levels, *logs)], [0])
    marks.append(now())
    parts = ("table_seconds", "index_seconds", "certificate_seconds")
    found = {part: round(b - a, 3) for part, (a, b) in zip(parts, itertools.pairwise(marks), strict=True)}
    return {"eps_range": law.plan.eps_range, "eps_exact": exact, **found}

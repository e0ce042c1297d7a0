"""What every contender has: a set-up, a draw for each of some tokens, and for some a choice by given utilities."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..cases import Case, World

Chooser = Callable[[int], "np.ndarray[Any, Any]"]
"""So many independent choices among given utilities, as their places."""


class Contender(ABC):
    """One way to draw a word for each token. Making it is the set-up, which is timed apart from the draws.

    `package` is what must be importable. `tokens` are those of one timed step, None for the case's batch: slow ones
    get few. `guarantee` says what is promised, by whom, and in which arithmetic. `stated` is the law it is said to
    have: "exponential", "permute-and-flip", or in words what else.
    `choices`, `tail_choices` (0: too slow) and `tails` size the probes, `probe_epsilon` is that of the one on a table.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    guarantee: ClassVar[str]
    stated: ClassVar[str] = "exponential"
    tokens: ClassVar[int | None] = None
    choices: ClassVar[int] = 20_000
    tail_choices: ClassVar[int] = 8_000
    tails: ClassVar[int] = 1 << 18
    probe_epsilon: ClassVar[float] = 6.0
    environment: ClassVar[Mapping[str, str]] = {}
    has_processes: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, world: World) -> None: ...

    @classmethod
    def absent(cls, case: Case) -> str | None:
        """Why this contender does not take part in a case, or None."""
        if cls.package is not None and importlib.util.find_spec(cls.package) is None:
            return f"{cls.package} is not installed"
        return None

    @classmethod  # noqa: B027
    def prepare(cls, world: World) -> None:
        """Files that the set-up reads; not timed."""

    @classmethod
    def step_tokens(cls, case: Case) -> int:
        return cls.tokens if cls.tokens is not None else case.batch

    def inputs(self, ids: Tensor) -> Tensor:
        """What `draw` is given for some tokens: ids or vectors. Neither timed nor counted as memory of the draws."""
        return ids

    @abstractmethod
    def draw(self, tokens: Tensor) -> Sequence[int] | Tensor:
        """One word's id for each token's `inputs`. Shapes: tokens [n] int64 or [n, D] float32; result [n]."""

    def radius(self, world: World) -> float:
        """The distance from which on all words are alike."""
        return math.inf

    @classmethod
    def chooser(cls, utilities: Sequence[float], epsilon: float) -> Chooser | None:
        """How it chooses at a sensitivity of 1, or None if it takes no utilities.

        `utilities` are multiples of 1/127 from 0 to 1, 0 and 1 among them, so that no table has to round them.
        """
        return None

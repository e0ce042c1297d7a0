"""What is trained: the model's shape, the batch and the method, the same for every contender."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Method = Literal["lora", "prompt", "full"]
METHODS: tuple[Method, ...] = ("lora", "prompt", "full")


@dataclass(frozen=True)
class Case:
    """One row of the result.

    `probed`: how many records the probe empties, one after the other; 0 leaves it out. `timed` is False where only the
    probe runs, and `default` for what only `--all` runs.
    """

    name: str
    method: Method
    batch: int
    length: int
    words: int
    width: int = 256
    layers: int = 4
    tied: bool = False
    timed: bool = True
    probed: int = 1
    default: bool = True

    def to_json(self) -> dict[str, Any]:
        """What the numbers depend on."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in ("name", "default")}


def _grid() -> list[Case]:
    """Each method at every length and vocabulary. The probe looks at the smaller one: words change nothing in it."""
    batches = {32: 16, 128: 16, 1024: 2}
    return [
        Case(
            f"{method}-t{length}-v{words // 1000}k",
            method,
            # Per-sample gradients of both word matrices in vmap would take most of the run.
            batch=4 if method == "full" and length == 128 and words > 10_000 else batch,
            length=length,
            words=words,
            probed=int(words < 10_000),
            default=method == "lora" or words < 10_000 or length == 128,
        )
        for method in METHODS
        for length, batch in batches.items()
        for words in (8192, 32000)
    ]


def _probes() -> list[Case]:
    """Small models of which records are emptied in turn, at sizes where libraries were seen to fail unseen."""
    small: dict[str, Any] = {"length": 32, "words": 1000, "width": 128, "timed": False}
    return [
        Case("probe-lora", "lora", 16, layers=2, probed=16, **small),
        Case("probe-prompt", "prompt", 48, layers=2, probed=12, **small),
        Case("probe-full", "full", 16, layers=2, probed=16, **small),
        Case("probe-full-tied", "full", 16, layers=1, probed=16, tied=True, **small),
    ]


CASES = [
    *_grid(),
    Case("full-b32-t32-d384", "full", 32, 32, 8192, width=384),
    Case("full-tied-t32-v8k", "full", 16, 32, 8192, tied=True, default=False),
    *_probes(),
]
QUICK = [
    Case("lora", "lora", 4, 12, 61, width=16, layers=2),
    Case("prompt", "prompt", 4, 12, 61, width=16, layers=2),
    Case("full", "full", 4, 12, 61, width=16, layers=2),
    Case("probe", "full", 4, 12, 61, width=16, layers=1, tied=True, timed=False, probed=4),
]

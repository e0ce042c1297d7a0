"""What is trained: the model's shape, the batch and the method, the same for every contender."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Method = Literal["lora", "prompt", "full"]


@dataclass(frozen=True)
class Case:
    """One row of the result. `default` is False for what only `--all` runs."""

    name: str
    method: Method
    batch: int
    length: int
    words: int
    width: int = 256
    layers: int = 4
    tied: bool = False
    default: bool = True

    def to_json(self) -> dict[str, Any]:
        """What the numbers depend on."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in ("name", "default")}


def _grid() -> list[Case]:
    """Each method at every length and vocabulary; the default set holds what the targets speak of."""
    batches = {32: 32, 128: 16, 1024: 4}
    chosen = {
        ("lora", 128, 8192),
        ("lora", 128, 32000),
        ("lora", 32, 8192),
        ("prompt", 128, 8192),
        ("full", 128, 8192),
    }
    methods: tuple[Method, ...] = ("lora", "prompt", "full")
    return [
        Case(
            f"{method}-t{length}-v{words // 1000}k",
            method,
            batches[length],
            length,
            words,
            default=(method, length, words) in chosen,
        )
        for method in methods
        for length in batches
        for words in (8192, 32000)
    ]


CASES = [
    *_grid(),
    Case("full-b32-t32-d384", "full", 32, 32, 8192, width=384),
    Case("full-tied-t32-v8k", "full", 16, 32, 8192, tied=True),
]
QUICK = [
    Case("lora", "lora", 4, 12, 61, width=16, layers=2),
    Case("prompt", "prompt", 4, 12, 61, width=16, layers=2),
    Case("full", "full", 4, 12, 61, width=16, layers=2),
]

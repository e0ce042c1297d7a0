"""What a step may hand on: typed, immutable messages that every runtime can encode without pickle.

A message carries no private handle and no torch object. `privkt.runtime.wire` turns it into bytes
(Arrow for tables, safetensors and JSON for weights); only what is declared here can cross.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ClientId = str


class LabelledText(NamedTuple):
    """One row of `Texts`."""

    text: str
    label: str | None


@dataclass(frozen=True)
class Texts:
    """A table of texts, labelled or not; the order of its rows is part of the message.

    Shapes: text: n strings; label: n strings or None; columns: further columns of n strings each.
    Raises: ValueError when lengths differ.
    """

    text: tuple[str, ...]
    label: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in {"label": self.label, **self.columns}.items():
            if column is not None and len(column) != len(self.text):
                raise ValueError(f"Texts: column {name!r} must have {len(self.text)} rows like text, got {len(column)}")

    def __len__(self) -> int:
        return len(self.text)

    def __iter__(self) -> Iterator[LabelledText]:
        labels = self.label if self.label is not None else (None,) * len(self.text)
        return (LabelledText(text, label) for text, label in zip(self.text, labels, strict=True))

    @classmethod
    def of(cls, rows: list[LabelledText] | list[tuple[str, str]]) -> Texts:
        """Texts from (text, label) pairs; no row may lack its label."""
        return cls(tuple(row[0] for row in rows), tuple(str(row[1]) for row in rows))


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter as its files: `adapter_config.json`, `adapter_model.safetensors`, `README.md`."""

    files: Mapping[str, bytes]


@dataclass(frozen=True)
class SoftPrompt:
    """A PEFT prompt-tuning adapter as its files."""

    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Parcel:
    """Several messages in one, by name: what one step hands on together. A parcel holds no parcel.

    Raises: ValueError, for a name that is not plain (small letters, digits, dashes) or an item that cannot cross.
    """

    items: Mapping[str, Texts | Adapter | SoftPrompt]

    def __post_init__(self) -> None:
        for name, item in self.items.items():
            if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name) is None:
                raise ValueError("Parcel: names must be 1 to 64 small letters, digits and dashes, and one is not")
            if not isinstance(item, Texts | Adapter | SoftPrompt):
                raise ValueError(
                    f"Parcel: item {name!r} must be Texts, an Adapter or a SoftPrompt, got {type(item).__name__}"
                )


@dataclass(frozen=True)
class Model:
    """A whole model in Hugging Face format, by the folder that holds it. Stays on its site."""

    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What a site keeps: results, scores, the final model. It never crosses.

    `scores`: {arm: {metric: value}}, one arm per way the task model was trained ("private data alone", ...).
    `notes`: JSON values for the local report (overlap with private text, counts of unparsed answers).
    `model`: what `privkt predict` loads.
    """

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    model: Model | Adapter | SoftPrompt | None = None


Message = Texts | Adapter | SoftPrompt | Parcel | Model | Outcome

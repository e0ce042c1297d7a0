"""Data: how rows are read, and the handle through which private rows are reached."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from privkt.privacy import assert_private_access


@dataclass(frozen=True)
class Rows:
    """Rows in memory, columns as declared in the config.

    Shapes: text: n strings; label: n strings or None; ids: n strings, unique (a file's row number if it has none);
    columns: further declared columns.
    """

    text: tuple[str, ...]
    label: tuple[str, ...] | None = None
    ids: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.text)

    def canonical(self) -> Iterable[bytes]:
        """One unambiguous byte string a row (lengths first), for the local HMAC fingerprint; never a plain hash."""
        names = sorted(self.columns)
        for i, text in enumerate(self.text):
            parts = [text, "" if self.label is None else self.label[i], *(self.columns[c][i] for c in names)]
            yield b"".join(len(p.encode()).to_bytes(8, "big") + p.encode() for p in parts)


@dataclass(frozen=True)
class DataSource:
    """What a `data:` block of the config says; `options` are the dataset plugin's own keys."""

    source: str
    text: str
    label: str | None = None
    labels: tuple[str, ...] | None = None
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """Reads rows from one kind of source (JSONL, CSV, Parquet, a hub id).

    Errors are `privkt.privacy.RefusedInput` and name the source, the row's number and the rule; never a row's content,
    and not the path, which may be private too. Whoever knows the data set's declared name puts it before them.
    """

    def __init__(self, source: DataSource) -> None:
        self.source = source

    @abstractmethod
    def load(self) -> Rows:
        """Every row, in file order; refuses missing columns, non-UTF-8, undeclared labels, empty data."""


@dataclass
class PrivateData:
    """The only way to private rows. `load` is refused while a release is being post-processed.

    `size`, `labels`, `name` are declared in the config and public; the rows, their number and their
    label counts are not.
    """

    name: str
    size: int
    labels: tuple[str, ...] | None
    reader: Callable[[], Rows]
    fingerprint: str = ""
    data_changed: bool = False
    public: bool = False

    def load(self) -> Rows:
        """The rows. Raises PrivateAccessLocked inside `Release.map`."""
        assert_private_access(f"rows of the data set {self.name!r}")
        return self.reader()


def public_digest(*parts: str) -> str:
    """SHA-256 of *public* strings (prompts from released text, configs). Never call it on private text."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()

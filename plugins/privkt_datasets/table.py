"""From a file's raw values to `Rows`: one set of rules for every source.

No message repeats a value of the file: rows are named by number, values by type, labels by what was declared.
"""

from __future__ import annotations

import difflib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from privkt.contracts import Dataset, DataSource, Rows
from privkt.privacy import RefusedInput
from privkt_datasets.options import Options, read_options, subject


class Absent:
    """A cell that a row does not have at all, unlike null."""


ABSENT = Absent()


def row_place(i: int) -> str:
    """Rows count from 1."""
    return f"row {i + 1}"


@dataclass(frozen=True)
class Table:
    """Raw columns of equal length. `place(i)` says where row i stands; `typed` is false if all cells are text (CSV)."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    place: Callable[[int], str] = field(default=row_place)
    typed: bool = True


class TableDataset(Dataset):
    """Base of the sources: they `read` a Table, the rules are applied here."""

    own_options: tuple[str, ...] = ()

    def __init__(self, source: DataSource) -> None:
        super().__init__(source)
        self.options = read_options(source, self.own_options)

    @abstractmethod
    def read(self) -> Table:
        """The raw table."""

    def load(self) -> Rows:
        return to_rows(self.source, self.options, self.read())

    def refuse(self, rule: str) -> NoReturn:
        """Raises RefusedInput for this source, without whatever exception is being handled."""
        raise RefusedInput(f"{subject(self.source)}: {rule}") from None

    def file(self) -> Path:
        """The file that `path` names. Raises RefusedInput if there is none."""
        if not self.source.path:
            self.refuse("`path` is missing; add the file's path")
        path = Path(self.source.path)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "names no file"
            self.refuse(f"`path` {what}, got {path.name!r}; relative paths start at the config's folder")
        return path

    def decoded(self, data: bytes) -> str:
        """Text of a UTF-8 file, a byte-order mark dropped. Raises RefusedInput with the line and the byte's offset."""
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            at = error.start
        line = data[:at].count(b"\n") + 1
        self.refuse(f"must be UTF-8, and line {line} (byte {at}) is not; convert the file to UTF-8")


def to_rows(source: DataSource, options: Options, table: Table) -> Rows:
    """Rows as the config declares them. Raises RefusedInput for anything else."""
    reader = _Reader(source, options, table)
    if reader.rows == 0:
        reader.refuse("is empty: it must have at least one row; check the file, or the split")
    wanted = [source.text, source.label, options.id, *options.columns]
    for name in dict.fromkeys(w for w in wanted if w is not None):
        reader.require(name)
    return Rows(
        text=reader.texts(source.text),
        label=reader.labels() if source.label is not None else None,
        ids=reader.ids(),
        columns={name: reader.plain(name, lists=True) for name in options.columns},
    )


class _Reader:
    def __init__(self, source: DataSource, options: Options, table: Table) -> None:
        self.source, self.options, self.table = source, options, table
        self.rows = table.rows if options.limit is None else min(table.rows, options.limit)

    def refuse(self, rule: str) -> NoReturn:
        raise RefusedInput(f"{subject(self.source)}: {rule}")

    def require(self, name: str) -> None:
        if name in self.table.columns:
            return
        near = difflib.get_close_matches(name, list(self.table.columns), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"none of its {len(self.table.columns)} columns is near"
        self.refuse(f"has no column {name!r}; {hint}")

    def cells(self, name: str) -> Sequence[Any]:
        column = self.table.columns[name][: self.rows]
        for i, cell in enumerate(column):
            if cell is None or cell is ABSENT:
                what = "is null" if cell is None else "is missing"
                self.refuse(f"{self.table.place(i)}: column {name!r} {what}; fill it or drop the row")
        return column

    def checked(self, name: str, i: int, cell: Any, *, numbers: bool) -> str:
        if numbers and isinstance(cell, int) and not isinstance(cell, bool):
            return str(cell)
        if not isinstance(cell, str):
            kinds = "text or a whole number" if numbers else "text"
            self.refuse(
                f"{self.table.place(i)}: column {name!r} must hold {kinds}, got {type(cell).__name__}; correct the row"
            )
        try:
            cell.encode()
        except UnicodeEncodeError:
            place = self.table.place(i)
        else:
            return cell
        self.refuse(f"{place}: column {name!r} holds half of a surrogate pair, which no text has; correct the row")

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self.checked(name, i, cell, numbers=False) for i, cell in enumerate(self.cells(name)))

    def plain(self, name: str, *, lists: bool = False) -> tuple[str, ...]:
        return tuple(
            self.listed(name, i, cell)
            if lists and isinstance(cell, list)
            else self.checked(name, i, cell, numbers=True)
            for i, cell in enumerate(self.cells(name))
        )

    def listed(self, name: str, i: int, cell: list[Any]) -> str:
        """A list of texts, as one line of JSON."""
        return json.dumps([self.checked(name, i, part, numbers=True) for part in cell], ensure_ascii=False)

    def ids(self) -> tuple[str, ...]:
        if self.options.id is None:
            return tuple(str(i + 1) for i in range(self.rows))
        found = self.plain(self.options.id)
        first: dict[str, int] = {}
        for i, value in enumerate(found):
            if value in first:
                self.refuse(
                    f"{self.table.place(i)}: column {self.options.id!r} must be unique, and repeats that of "
                    f"{self.table.place(first[value])}; correct one of them"
                )
            first[value] = i
        return found

    def labels(self) -> tuple[str, ...]:
        name = self.source.label
        assert name is not None
        found = tuple(self.label(name, i, cell) for i, cell in enumerate(self.cells(name)))
        if len(set(found)) < 2:
            self.refuse(
                f"column {name!r} holds one class only in {self.rows} rows; labelled data needs at least two classes"
            )
        return found

    def label(self, name: str, i: int, cell: Any) -> str:
        value = self.checked(name, i, cell, numbers=True)
        declared = self.source.labels
        if self.options.label_map is not None:
            if value in self.options.label_map:
                return self.options.label_map[value]
            keys = ", ".join(self.options.label_map)
            self.refuse(f"{self.table.place(i)}: column {name!r} holds a value that label_map lacks; it maps {keys}")
        if declared is None or value in declared:
            return value
        if (position := self.position(cell)) is not None:
            return declared[position]
        self.refuse(
            f"{self.table.place(i)}: column {name!r} holds a label that is not declared; declared are "
            f"{', '.join(declared)}; correct the row, declare it, or map it with `label_map`"
        )

    def position(self, cell: Any) -> int | None:
        """The place in the declared labels that a number means, 0 the first; only where no label is itself a number."""
        declared = self.source.labels or ()
        if any(_whole(label) is not None for label in declared):
            return None
        number = cell if isinstance(cell, int) else None if self.table.typed else _whole(cell)
        return number if number is not None and 0 <= number < len(declared) else None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

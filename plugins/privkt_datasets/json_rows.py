"""JSON: one object a line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from privkt_datasets.table import ABSENT, Table, TableDataset


class JsonDataset(TableDataset):
    """`path` names the file. Lines end at a newline alone, so that separators inside a string stay in it."""

    def read(self) -> Table:
        text = self.decoded(self.file().read_bytes())
        if text.lstrip(" \t\r\n").startswith("["):
            records = list(self._array(text))
            lines: list[int] | None = None
        else:
            numbered = list(self._lines(text))
            records, lines = [record for _, record in numbered], [line for line, _ in numbered]
        names = dict.fromkeys(name for record in records for name in record)
        columns = {name: [record.get(name, ABSENT) for record in records] for name in names}

        def place(i: int) -> str:
            return f"row {i + 1}" if lines is None else f"row {i + 1} (line {lines[i]})"

        return Table(columns, len(records), place)

    def _lines(self, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip(" \t\r"):
                yield number, self._object(self._parsed(line, number), f"line {number}")

    def _array(self, text: str) -> Iterator[dict[str, Any]]:
        for i, record in enumerate(self._parsed(text, 1)):
            yield self._object(record, f"row {i + 1}")

    def _object(self, record: Any, place: str) -> dict[str, Any]:
        if not isinstance(record, dict):
            self.refuse(f"{place} must be a JSON object, got {type(record).__name__}; write one object a row")
        return record

    def _parsed(self, text: str, first_line: int) -> Any:
        # The parser's exception holds the whole text: it is left behind before a message is made.
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {first_line + error.lineno - 1}, column {error.colno}"
        except (ValueError, RecursionError):
            where = f"line {first_line}"
        self.refuse(f"{where} is not valid JSON; correct the file")

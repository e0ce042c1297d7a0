"""CSV with a header line."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from privkt_datasets.options import text_option
from privkt_datasets.table import Table, TableDataset


class CsvDataset(TableDataset):
    """`path` names the file; `delimiter` is a comma unless given. Every cell is text; an empty cell is empty text."""

    own_options = ("delimiter",)

    def read(self) -> Table:
        delimiter = text_option(self.source, "delimiter", ",") or ","
        if len(delimiter) != 1 or delimiter in '"\r\n':
            self.refuse("option 'delimiter' must be one character that is no quote and no line end; a tab is \"\\t\"")
        rows = list(self._rows(self.decoded(self.file().read_bytes()), delimiter))
        if not rows:
            self.refuse("is empty: it must have a header and at least one row; check the file")
        (_, header), body = rows[0], rows[1:]
        if len(set(header)) < len(header):
            twice = next(i for i, name in enumerate(header) if name in header[:i])
            self.refuse(f"header names must differ, and column {twice + 1} repeats an earlier one; rename it")
        for i, (line, cells) in enumerate(body):
            if len(cells) != len(header):
                self.refuse(
                    f"row {i + 1} (line {line}) must have {len(header)} cells like the header, got {len(cells)}; "
                    "quote cells that hold the delimiter"
                )
        columns = {name: [cells[c] for _, cells in body] for c, name in enumerate(header)}
        return Table(columns, len(body), lambda i: f"row {i + 1} (line {body[i][0]})", typed=False)

    def _rows(self, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        start = 1
        with _any_length():
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error:
                    line = reader.line_num
                else:
                    if cells is None:
                        return
                    if cells:
                        yield start, cells
                    start = reader.line_num + 1
                    continue
                self.refuse(f"the row that ends at line {line} is not valid CSV; close its quotes")


@contextmanager
def _any_length() -> Iterator[None]:
    """Lifts csv's limit of 131,072 characters a cell, which is one number for the whole process."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)

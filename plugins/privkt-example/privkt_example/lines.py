"""Text files: one row a line, and before the first tab its label."""

from __future__ import annotations

from pathlib import Path

from privkt.contracts import Dataset, Rows
from privkt.privacy import RefusedInput


class Lines(Dataset):
    """`path` names a UTF-8 file. With `label` in the config a line is "label TAB text", without it the text alone."""

    def load(self) -> Rows:
        source = self.source
        if source.options:
            raise RefusedInput(f"data (lines): unknown option {next(iter(source.options))!r}; it takes none")
        if source.labels is not None:
            if source.label is None:
                raise RefusedInput("data (lines): `labels` needs `label`; add it")
            if len(set(source.labels)) < max(2, len(source.labels)):
                raise RefusedInput("data (lines): `labels` must be at least two different names; list every class once")
        lines = self._lines()
        if not lines:
            raise RefusedInput("data (lines): is empty: it must have at least one line; check the file")
        ids = tuple(str(i) for i in range(1, len(lines) + 1))
        if source.label is None:
            return Rows(tuple(lines), None, ids)
        pairs = [self._pair(i, line) for i, line in enumerate(lines, 1)]
        labels = tuple(label for label, _ in pairs)
        if len(set(labels)) < 2:
            raise RefusedInput("data (lines): holds one class only; labelled data needs at least two classes")
        return Rows(tuple(text for _, text in pairs), labels, ids)

    def _lines(self) -> list[str]:
        path = Path(self.source.path or "")
        if not path.is_file():
            raise RefusedInput("data (lines): `path` names no file; relative paths start at the config's folder")
        data = path.read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
        else:
            return text.removesuffix("\n").split("\n") if text else []
        raise RefusedInput(f"data (lines): must be UTF-8, and line {line} is not; convert the file")

    def _pair(self, i: int, line: str) -> tuple[str, str]:
        label, tab, text = line.partition("\t")
        if not tab:
            raise RefusedInput(f"data (lines): row {i} must be a label, a tab and a text; add the label")
        declared = self.source.labels
        if declared is not None and label not in declared:
            raise RefusedInput(
                f"data (lines): row {i} holds a label that is not declared; declared are {', '.join(declared)}"
            )
        return label, text

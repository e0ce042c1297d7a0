"""Answers on disk: each is written down before anything else happens, so that a crash costs no second request."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privkt.contracts import BackendError

FILE_NAME = "answers.jsonl"


class AnswerCache:
    """A map from key to answer that survives crashes; None as folder keeps nothing.

    One line of JSON an answer, appended and fsynced by `put`. Several processes may share the folder.
    Guarantee: what `put` returned from is found by every later `AnswerCache` of the folder. Keys are the caller's
    hashes; the file is readable by its owner alone.
    Edge cases: a last line cut by a crash is skipped, counted in `damaged`, and never joins the next answer.
    Raises: BackendError when the folder cannot be written (a full disk); what was written stays.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE_NAME
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._offset = 0
        self.damaged = 0

    @property
    def kept(self) -> bool:
        """Whether answers outlive this process."""
        return self._path is not None

    def refresh(self) -> None:
        """Reads what was appended since the last look, by this process or another."""
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            self._learn(line)

    def get(self, key: str) -> Mapping[str, Any] | None:
        return self._answers.get(key)

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Writes an answer and returns once it is on disk."""
        if self._path is None:
            return
        line = json.dumps({"key": key, "value": value}, separators=(",", ":")).encode() + b"\n"
        try:
            self._append(self._path, line)
        except OSError as error:
            raise BackendError(
                f"answer cache: every answer must be written before the next is asked for, got "
                f"{error.strerror or type(error).__name__}; free space or mend the folder, then resume with "
                "`privkt run --resume`"
            ) from None
        self._answers[key] = value

    def _append(self, path: Path, line: bytes) -> None:
        made = not path.exists()
        if made:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            # A line cut by a crash ends here, so that it spoils nothing but itself.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if made:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _learn(self, line: bytes) -> None:
        if not line:
            return
        try:
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
        except (ValueError, KeyError, TypeError):
            self.damaged += 1
            return
        if isinstance(key, str) and isinstance(value, dict):
            self._answers[key] = value
        else:
            self.damaged += 1

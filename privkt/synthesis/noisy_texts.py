"""What was drawn for each record, on disk before anybody reads it, and never drawn again."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privkt.privacy import ChargeConflict, DataChanged, PrivacyError, RefusedInput, assert_private_access, state

_FORMAT = 1


@dataclass(frozen=True)
class NoisyText:
    """One record's draw: the rows that the mechanism gave, and their text."""

    ids: tuple[int, ...]
    text: str


class NoisyTexts:
    """The draws of one spend, by record id, in a private folder.

    Open it, hold it with `locked`, `bind` the records, then `get` and `append`.
    Guarantee: what `append` was given is on the disk (fsync) when it returns; whole lines that a killed process left
        are kept and made durable, a line that it cut short was read by nobody and is dropped. A record is stored once;
        asked with another text it is refused. The private texts are kept as keyed hashes under the state folder's
        secret, each together with its id, so that equal texts of two records look different.
    Raises: ChargeConflict, for other settings than the store was made with; PrivacyError, for a damaged file.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._header = self.folder / "store.json"
        self._file = self.folder / "texts.jsonl"
        self._bound = self.folder / "records.json"
        self.run_id = self._opened(json.loads(json.dumps(dict(settings), sort_keys=True)))
        self._secret = state.local_secret(state.state_folder())
        self._drawn: dict[str, NoisyText] = {}
        self._marks: dict[str, str] = {}

    @staticmethod
    def exists(folder: str | os.PathLike[str]) -> bool:
        """Whether a store lies there."""
        return (Path(folder) / "store.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the store for this process and reads what is in it; the system lets go however the process ends.

        Raises: RefusedInput, when another process draws into it.
        """
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedInput(
                    f"noisy texts in {self.folder}: another process draws them; wait for it or stop it"
                ) from None
            self._read()
            yield
        finally:
            os.close(handle)

    def bind(self, records: Sequence[tuple[str, str]]) -> None:
        """Fixes the (id, text) records that this spend pays for, in any order; each is drawn once under one id.

        Raises: DataChanged, for any other set of records: a record under a second id would be drawn twice.
        """
        for record_id, text in records:
            self.get(record_id, text)
        mac = hmac.new(self._secret, b"privkt noisy records 1\0", hashlib.sha256)
        for mark in sorted(self._mark(*record) for record in records):
            mac.update(bytes.fromhex(mark))
        if not self._bound.exists():
            os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600))
            _write(self._bound, {"records": mac.hexdigest()})
        try:
            held = str(json.loads(self._bound.read_bytes())["records"])
        except (ValueError, KeyError, TypeError):
            raise self._damaged(self._bound.name) from None
        if not hmac.compare_digest(held, mac.hexdigest()):
            raise DataChanged(
                "noisy texts: a spend pays for one draw of each record that it began with, and others came, or some "
                "under other ids; restore records and ids, or draw anew elsewhere, which is a new spend"
            )

    def get(self, record_id: str, text: str) -> NoisyText | None:
        """What was drawn for a record, or None.

        Raises: DataChanged, if its text is not the one that was drawn for; PrivateAccessLocked.
        """
        assert_private_access("the record behind a noisy text")
        found = self._drawn.get(record_id)
        if found is not None and not hmac.compare_digest(self._marks[record_id], self._mark(record_id, text)):
            raise DataChanged(
                "noisy texts: a record keeps its text for as long as its draw is kept, and one changed; restore the "
                "data, or draw anew elsewhere, which is a new spend of the whole data set"
            )
        return found

    def append(self, records: Sequence[tuple[str, str]], drawn: Sequence[NoisyText]) -> None:
        """Stores draws of bound (id, text) records that have none.

        Raises: ChargeConflict, for a record that has one.
        """
        lines = []
        for (record_id, text), noisy in zip(records, drawn, strict=True):
            if record_id in self._drawn:
                raise ChargeConflict("noisy texts: a record is drawn once, and one came again; return its stored text")
            mark = self._mark(record_id, text)
            self._drawn[record_id], self._marks[record_id] = noisy, mark
            value = {"id": record_id, "mark": mark, "ids": noisy.ids, "text": noisy.text}
            lines.append(json.dumps(value, ensure_ascii=False) + "\n")
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        try:
            view = memoryview("".join(lines).encode())
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def _mark(self, record_id: str, text: str) -> str:
        mac = hmac.new(self._secret, b"privkt noisy text 1\0", hashlib.sha256)
        for part in (record_id.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass")):
            mac.update(len(part).to_bytes(8, "big") + part)
        return mac.hexdigest()

    def _opened(self, settings: dict[str, Any]) -> str:
        if not self._header.exists():
            if self.folder.exists() and (not self.folder.is_dir() or not all(map(_is_draft, self.folder.iterdir()))):
                raise RefusedInput(f"noisy texts: {self.folder} must be new or empty; name another folder")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.folder, 0o700)
            _write(self._header, {"format": _FORMAT, "run_id": secrets.token_hex(16), "settings": settings})
        try:
            header = json.loads(self._header.read_bytes())
            held, run_id = header["settings"], str(header["run_id"])
            known = header["format"] == _FORMAT
        except (ValueError, KeyError, TypeError):
            raise self._damaged("store.json") from None
        if not known:
            raise RefusedInput(f"noisy texts in {self.folder}: were written in another format; use that version")
        differing = sorted(key for key in {*held, *settings} if held.get(key) != settings.get(key))
        if differing:
            raise ChargeConflict(
                f"noisy texts in {self.folder}: one spend has one set of settings, and {', '.join(differing)} differs; "
                "put it back, or draw anew elsewhere, which is a new spend"
            )
        return run_id

    def _read(self) -> None:
        self._drawn, self._marks = {}, {}
        if not self._file.exists():
            if self._bound.exists():
                raise self._damaged("texts.jsonl")
            return
        data = self._file.read_bytes()
        whole = data.rfind(b"\n") + 1
        handle = os.open(self._file, os.O_RDWR)
        try:
            os.ftruncate(handle, whole)
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            for value in map(json.loads, data[:whole].split(b"\n")[:-1]):
                self._drawn[value["id"]] = NoisyText(tuple(value["ids"]), value["text"])
                self._marks[value["id"]] = value["mark"]
        except (ValueError, KeyError, TypeError):
            raise self._damaged("texts.jsonl") from None

    def _damaged(self, name: str) -> PrivacyError:
        return PrivacyError(
            f"noisy texts in {self.folder}: {name} is damaged; restore it from a copy, or draw anew elsewhere, which "
            "is a new spend"
        )


def payload_digest(texts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of the noisy texts of (record id, noisy text), in the order of the ids: what a ledger knows them by.

    Guarantee: the same however they are ordered, named or written out; the ids themselves are not in it.
    """
    state = hashlib.sha256(b"privkt noisy texts 1\0")
    for _, text in sorted(texts):
        part = text.encode("utf-8", "surrogatepass")
        state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()


def _is_draft(path: Path) -> bool:
    """Whether a process left it that was killed while it wrote the header, which is before all else."""
    return re.fullmatch(r"\.store\.json\.[0-9a-f]{8}\.tmp", path.name) is not None and path.is_file()


def _write(path: Path, value: Any) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write((json.dumps(value, sort_keys=True, indent=2) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    state.fsync_folder(path.parent)

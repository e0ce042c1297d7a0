"""Entries of a ledger and the hash chain through them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from privkt.privacy.errors import LedgerTampered

GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One line of a ledger; `text` is the body exactly as it was hashed."""

    sequence: int
    kind: str
    time: str
    text: str
    previous: str
    hash: str

    @property
    def body(self) -> dict[str, Any]:
        """What the entry says."""
        return json.loads(self.text)


def canonical(body: dict[str, Any]) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def link(sequence: int, kind: str, time: str, text: str, previous: str) -> Entry:
    """The entry that follows the one whose hash is `previous`."""
    sealed = json.dumps([sequence, kind, time, text, previous]).encode()
    return Entry(sequence, kind, time, text, previous, hashlib.sha256(sealed).hexdigest())


def check_chain(name: str, entries: Iterable[Entry], head: tuple[int, str] | None) -> None:
    """Hold every entry against its hash, its predecessor and the head.

    Raises: LedgerTampered, naming the first entry that is wrong.
    Edge cases: an older copy of the whole file holds together; only a head kept elsewhere tells (`Ledger.verify`).
    """
    previous, expected = GENESIS, 1
    for entry in entries:
        if entry.sequence != expected:
            raise _tampered(name, expected, f"entry {expected} is missing")
        if entry.previous != previous or link(expected, entry.kind, entry.time, entry.text, previous) != entry:
            raise _tampered(name, expected, f"entry {expected} was changed or moved")
        previous, expected = entry.hash, expected + 1
    if (head or (0, GENESIS)) != (expected - 1, previous):
        raise _tampered(name, expected, f"entries from {expected} on were removed, or the head was changed")


def _tampered(name: str, sequence: int, what: str) -> LedgerTampered:
    return LedgerTampered(
        f"ledger {name}: its hash chain must hold, but {what}; restore the newest copy, and charge nothing until then",
        entry=sequence,
    )

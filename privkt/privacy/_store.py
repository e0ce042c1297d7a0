"""The SQLite file under a ledger: append-only, durable before a call returns, safe between processes."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from privkt.privacy._chain import GENESIS, Entry, canonical, check_chain, link
from privkt.privacy.errors import LedgerMissing, LedgerTampered, LedgerUnavailable
from privkt.privacy.state import fsync_folder

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, time TEXT NOT NULL, body TEXT NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS head (only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL,
    hash TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'ledger entries are never changed'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'ledger entries are never removed'); END;
"""
_PATIENCE = 60.0  # seconds to wait for another process's transaction


class Transaction:
    """Verified entries, and the right to append to them until the block ends."""

    def __init__(self, connection: sqlite3.Connection, entries: list[Entry]) -> None:
        self._connection = connection
        self.entries = entries

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        """Add one entry; it is durable when the transaction's block has ended."""
        last = self.entries[-1] if self.entries else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = link(last.sequence + 1 if last else 1, kind, now, canonical(body), last.hash if last else GENESIS)
        self._connection.execute(
            "INSERT INTO entries (sequence, kind, time, body, previous, hash) VALUES (?, ?, ?, ?, ?, ?)",
            (entry.sequence, entry.kind, entry.time, entry.text, entry.previous, entry.hash),
        )
        self._connection.execute(
            "INSERT INTO head (only, sequence, hash) VALUES (1, ?, ?) "
            "ON CONFLICT (only) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash",
            (entry.sequence, entry.hash),
        )
        self.entries.append(entry)
        return entry


class Store:
    """One ledger file. A connection lives for one call, so forks and threads share nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The data set's name, which is the file's."""
        return self.path.name.removesuffix(".sqlite3")

    def create(self) -> None:
        """Make the file with mode 0600 and its tables, unless they exist."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            fsync_folder(self.path.parent)
        except FileExistsError:
            pass  # another process or an earlier run made it; the schema below is idempotent
        with self._connection() as connection:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    def read(self) -> list[Entry]:
        """All entries, verified."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            entries = self._entries(connection)
            connection.execute("COMMIT")
            return entries

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read, decide and append as one step; nothing is written if the block raises."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection, self._entries(connection))
            except BaseException:
                if connection.in_transaction:  # SQLite itself rolls back when the disk is full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def mentions(self, fingerprint: str) -> bool:
        """Whether any charge was made for data of this fingerprint."""
        return any(entry.kind == "charge" and entry.body["fingerprint"] == fingerprint for entry in self.read())

    def _entries(self, connection: sqlite3.Connection) -> list[Entry]:
        tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('entries', 'head')"
        if connection.execute(tables).fetchone()[0] < 2:
            return []  # a process died between making the file and its tables
        rows = connection.execute("SELECT sequence, kind, time, body, previous, hash FROM entries ORDER BY sequence")
        entries = [Entry(*row) for row in rows]
        head = connection.execute("SELECT sequence, hash FROM head").fetchone()
        check_chain(self.name, entries, head)
        return entries

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise LedgerMissing(f"ledger {self.name}: it must exist to be opened, and none was found; make it first")
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)) as connection:
                _patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone())
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(
                f"ledger {self.name}: SQLite must be able to read and write it, and said: {error}; "
                "free the disk or wait for the other process, then resume"
            ) from error
        except sqlite3.DatabaseError as error:
            raise LedgerTampered(
                f"ledger {self.name}: it must be a sound SQLite file, and SQLite said: {error}; restore the newest copy"
            ) from error


def _patiently(action: Callable[[], T]) -> T:
    """Switching a new file to WAL does not wait for other processes by itself."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)

"""How long work tells where it is. The command line shows it with rich; a library user may ignore it."""

from __future__ import annotations

from typing import Protocol


class ProgressTask(Protocol):
    """One thing that takes a while."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """`amount` more units are done; `note` is a short public word on them (never text of a record)."""


class Progress(Protocol):
    """Where tasks are announced."""

    def task(self, title: str, total: float | None, unit: str = "") -> ProgressTask:
        """Announces a task of `total` units (None: unknown)."""
        ...


class _Quiet:
    def advance(self, amount: float = 1, note: str = "") -> None:
        return None


class NoProgress:
    """Shows nothing."""

    def task(self, title: str, total: float | None, unit: str = "") -> ProgressTask:
        return _Quiet()

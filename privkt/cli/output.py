"""What a person sees: one console, progress with time left, errors without tracebacks."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 140  # a file or a pipe has no width: tables keep their columns
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output, nothing else."""
    sys.stdout.write(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """`value` without the infinities and NaNs that JSON has no word for: they become text and null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def visible(text: str) -> str:
    """`text` for a terminal: control characters, which could hide or fake a line, are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Amount(ProgressColumn):
    """How much is done, of how much if that is known."""

    def render(self, task: Task) -> Text:
        of = "" if task.total is None else f"/{task.total:g}"
        return Text(f"{task.completed:g}{of} {task.fields['unit']}")


class _BarTask:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Moves the bar; what is done makes room for what is under way."""
        self._bars.update(self._task, advance=amount, note=note)
        state = self._bars.tasks[self._bars.task_ids.index(self._task)]
        if state.total is not None and state.completed >= state.total:
            self._bars.update(self._task, visible=False)
            gone = state.finished_time or state.elapsed or 0.0
            self._bars.console.print(f"{state.description}: {state.completed:g} {state.fields['unit']}, {gone:.0f} s")


_TELLING = 0.05  # of a task, before its pace says anything


class BarProgress:
    """contracts.Progress on a terminal: a bar a task, with time gone and time left."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def task(self, title: str, total: float | None, unit: str = "") -> _BarTask:
        return _BarTask(self._bars, self._bars.add_task(title, total=total, note="", unit=unit))


class _LineTask:
    def __init__(self, title: str, total: float | None, unit: str, every: float) -> None:
        self._title, self._total, self._unit, self._every = title, total, unit, every
        self._done, self._start, self._told = 0.0, time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        err.print(f"{title} ...")

    def advance(self, amount: float = 1, note: str = "") -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            finished = self._total is not None and self._done >= self._total
            if not finished and now - self._told < self._every:
                return
            self._told = now
            gone = now - self._start
            text = f"  {self._title}: {self._done:g}"
            if self._total:
                text += f"/{self._total:g} {self._unit}, {gone:.0f} s gone"
                if self._done >= _TELLING * self._total:  # the first moments read, load and compile
                    left = gone * (self._total - self._done) / self._done
                    text += f", about {max(left, 0):.0f} s left"
            err.print(text + (f" ({note})" if note else ""))


class LineProgress:
    """contracts.Progress where there is no terminal: a line when something starts, ends, and every few seconds."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every

    def task(self, title: str, total: float | None, unit: str = "") -> _LineTask:
        return _LineTask(title, total, unit, self._every)


@contextmanager
def progress(show: bool = True) -> Iterator[Any]:
    """A contracts.Progress for this terminal (or for none)."""
    from privkt.contracts import NoProgress

    if not show:
        yield NoProgress()
    elif not err.is_terminal:
        yield LineProgress()
    else:
        # Narrow enough for 80 columns: a line that wraps cannot be drawn over.
        bars = Progress(
            TextColumn("{task.description}", table_column=Column(max_width=34, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=12),
            _Amount(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=err,
        )
        with bars:
            yield BarProgress(bars)

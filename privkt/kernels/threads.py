"""One call's work over several threads, without changing what is computed.

The kernels release the interpreter's lock, so plain threads run them side by side. A piece is a range that the caller
could also have computed alone: which thread runs it, and how many there are, never shows in the result.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch


class _Workers:
    """Threads that stay between calls, made when first needed and again when more are asked for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ThreadPoolExecutor | None = None
        self.size = 0

    def submit(self, function: Callable[[int, int], None], ranges: list[tuple[int, int]]) -> list[Future[None]]:
        with self.lock:
            if self.pool is None or self.size < len(ranges):
                if self.pool is not None:
                    self.pool.shutdown(wait=False)  # what it has been given still runs
                self.size = len(ranges)
                self.pool = ThreadPoolExecutor(self.size, "privkt-kernels")
            return [self.pool.submit(_piece, function, start, stop) for start, stop in ranges]


_workers = _Workers()
_here = threading.local()


def _forget_workers() -> None:
    """A forked child has the pool's memory but none of its threads, and perhaps a lock that nobody will release."""
    global _workers
    _workers = _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


def _piece(function: Callable[[int, int], None], start: int, stop: int) -> None:
    outer = getattr(_here, "inside", False)
    _here.inside = True
    try:
        function(start, stop)
    finally:
        _here.inside = outer


def _all_ended(futures: list[Future[None]]) -> BaseException | None:
    """Returns the interrupt that came while waiting, if one did: pieces write into buffers of the caller."""
    interrupt: BaseException | None = None
    while True:
        try:
            wait(futures)
            return interrupt
        except BaseException as error:
            interrupt = error


def parallel(total: int, function: Callable[[int, int], None], grain: int) -> None:
    """Call function(start, stop) on ranges that cover [0, total) once, on at most torch.get_num_threads() threads.

    Units: grain is the least work worth a thread, in the units of total; every range but the last ends on a multiple
    of it. The calling thread takes the first range.
    Guarantee:
      - no range is still running when the call returns or raises, an interrupt from the keyboard included;
      - an error of any range is raised, that of the lowest range first;
      - inside a range it runs its whole work at once, so ranges never wait for one another;
      - a process forked at any time starts with threads of its own.
    Edge cases: total 0 calls nothing.
    Raises: ValueError for a negative total or a grain below 1.
    """
    if total < 0 or grain < 1:
        raise ValueError(
            f"parallel: total must not be negative and grain at least 1, got {total} and {grain}; "
            "pass the number of items and the least number worth a thread"
        )
    blocks = -(-total // grain)
    pieces = 1 if getattr(_here, "inside", False) else min(torch.get_num_threads(), blocks)
    if pieces <= 1:
        if total:
            function(0, total)
        return
    cuts = [min(blocks * k // pieces * grain, total) for k in range(pieces + 1)]
    ranges = list(itertools.pairwise(cuts))
    futures = _workers.submit(function, ranges[1:])
    try:
        _piece(function, *ranges[0])
    finally:
        interrupt = _all_ended(futures)
    if interrupt is not None:
        raise interrupt
    for future in futures:
        future.result()

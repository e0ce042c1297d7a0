"""A contender in a process of its own: its patches reach nobody else, and its memory can be told from others'."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

_LONGEST_REASON = 160
_PATIENCE = 600.0  # seconds for one answer


class Failed(Exception):
    """A contender could not do what was asked; the text says why."""


def context(preload: Sequence[str]) -> Any:
    """Processes that begin with some libraries imported where the system can do that, and clean everywhere."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(preload))
    return found


class Worker:
    """The parent's end: asks one thing at a time of what `make(job)` gives, by the names of its methods.

    `daemon` off lets the contender have processes of its own; `end` it then whatever happens.
    """

    def __init__(self, where: Any, make: Callable[[Any], Any], job: Any, *, daemon: bool = True) -> None:
        self._pipe, theirs = where.Pipe()
        self._process = where.Process(target=serve, args=(theirs, make, job), daemon=daemon)
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> Any:
        """The answer of the method of that name.

        Raises: Failed, when the contender raised, took too long, or its process died.
        """
        try:
            self._pipe.send(what)
            if not self._pipe.poll(_PATIENCE):
                self._process.kill()
                raise Failed(f"no answer within {_PATIENCE:.0f} s")
            failed, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise Failed("its process died (out of memory?)") from None
        if failed:
            raise Failed(answer)
        return answer

    def end(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def serve(pipe: Connection, make: Callable[[Any], Any], job: Any) -> None:
    """The worker's end: answers until the parent hangs up."""
    warnings.filterwarnings("ignore")
    bench = make(job)
    while True:
        try:
            what = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # some libraries talk
                answer = getattr(bench, what)()
        except Exception as error:  # of other people's code, and the answer says which
            pipe.send((True, reason(error)))
        else:
            pipe.send((False, answer))


def reason(error: Exception) -> str:
    """Kind and first line of an error, without the paths of this machine."""
    lines = str(error).strip().splitlines() or [""]
    words = ["<path>" if word.startswith(("/", "'/", '"/', "(/")) else word for word in lines[0].split()]
    return f"{type(error).__name__}: {' '.join(words)}"[:_LONGEST_REASON].rstrip(": ")


class Crew:
    """The contenders still at work, and why others stopped."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self.failed: dict[str, str] = {}

    def names(self) -> list[str]:
        return list(self._workers)

    def hire(self, name: str, worker: Worker) -> None:
        self._workers[name] = worker
        self.ask(name, "begin")

    def ask(self, name: str, what: str, *, keep: bool = False) -> Any:
        """The answer; of one that failed None, or with `keep` the reason, and what it did before counts."""
        try:
            return self._workers[name].ask(what)
        except Failed as failure:
            if keep:
                return {"failed": str(failure)}
            self.failed[name] = str(failure)
            self.dismiss(name)
            return None

    def dismiss(self, *names: str) -> None:
        for name in names:
            self._workers.pop(name).end()

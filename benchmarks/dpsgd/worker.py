"""A contender in a process of its own: its patches reach nobody else, and its memory can be told from others'."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import multiprocessing
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import measuring

from .cases import QUICK, Case

_PRELOAD = ["torch", "peft", "transformers.models.llama.modeling_llama"]
_LONGEST_REASON = 160
_PATIENCE = 600.0  # seconds for one answer


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker does. `expected` is the file with the reference of the probe."""

    contender: str
    case: Case
    device: str
    threads: int
    steps: int
    expected: Path


class Failed(Exception):
    """A contender could not do what was asked; the text says why."""


def context() -> Any:
    """Processes that begin with the libraries imported where the system can do that, and clean everywhere."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOAD)
    return found


class Worker:
    """The parent's end: asks one thing at a time."""

    def __init__(self, where: Any, job: Job) -> None:
        self._pipe, theirs = where.Pipe()
        self._process = where.Process(target=serve, args=(theirs, job), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> Any:
        """The answer to "begin", "ready", "step" (seconds), "memory" (MiB) or "probe".

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


def serve(pipe: Connection, job: Job) -> None:
    """The worker's end: answers until the parent hangs up."""
    warnings.filterwarnings("ignore")
    bench = Bench(job)
    while True:
        try:
            what = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # fastDP talks
                answer = getattr(bench, what)()
        except Exception as error:  # of other people's code, and the answer says which
            pipe.send((True, reason(error)))
        else:
            pipe.send((False, answer))


def reason(error: Exception) -> str:
    """Kind and first line of an error, without the paths of this machine."""
    lines = str(error).strip().splitlines() or [""]
    words = ["<path>" if word.startswith(("/", "'/", '"/')) else word for word in lines[0].split()]
    return f"{type(error).__name__}: {' '.join(words)}"[:_LONGEST_REASON].rstrip(": ")


class Bench:
    """One contender on one case."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def begin(self) -> None:
        """Takes its place: threads, and the class of the contender."""
        import torch

        from .contenders import CONTENDERS

        torch.set_num_threads(self.job.threads)
        self.kind = CONTENDERS[self.job.contender]

    def ready(self) -> None:
        """Loads the libraries by training a tiny model, then the model; memory counts from there."""
        from . import models
        from .contenders import Setting, adamw

        device = self.job.device
        tiny = next(case for case in QUICK if case.method == self.job.case.method)
        tiny = dataclasses.replace(tiny, tied=self.job.case.tied)
        first = self.kind(Setting(tiny, device, 2, adamw), models.build(tiny, device))
        for _ in range(2):
            first.step(models.batch_of(tiny, device))
        first.close()
        del first
        clock = measuring.clock_of(device, self.job.threads)
        setting = Setting(self.job.case, device, self.job.steps, adamw)
        model = models.build(self.job.case, device)
        self.batch = models.batch_of(self.job.case, device)
        self.peak = measuring.Peak(device)
        self.contender = self.kind(setting, model)
        self.once = measuring.timed(lambda: self.contender.step(self.batch), clock)

    def step(self) -> float | None:
        """Seconds of one whole step."""
        return self.once()

    def memory(self) -> float | None:
        """MiB at the peak so far; the contender is let go."""
        found = self.peak.mib()
        self.contender.close()
        del self.contender
        return found

    def probe(self) -> dict[str, Any]:
        """See `probe`."""
        import torch

        from .probe import probe

        expected = torch.load(self.job.expected, weights_only=True)
        return probe(self.kind, self.job.case, self.job.device, expected)


def write_reference(case: Case, threads: int, file: Path) -> None:
    """In a process of its own: the probe's reference, to a file."""
    import torch

    from .probe import reference

    torch.set_num_threads(threads)
    torch.save(reference(case), file)

"""What a contender does in its process: trains, is timed, and is probed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import measuring

from .cases import QUICK, Case

PRELOAD = ["torch", "peft", "transformers.models.llama.modeling_llama"]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker does. `expected` is the file with the reference of the probe."""

    contender: str
    case: Case
    device: str
    threads: int
    steps: int
    expected: Path


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

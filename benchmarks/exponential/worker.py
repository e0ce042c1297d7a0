"""What a contender does in its process: is set up, draws, and is probed."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring

from .cases import TINY, Case, World, vectors_of

PRELOAD = ["torch", "scipy.special", "privkt.kernels"]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker does. `vectors` is the file with the table; `quick` makes the probes small."""

    contender: str
    case: Case
    threads: int
    vectors: Path
    quick: bool = False


class Bench:
    """One contender on one case."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def begin(self) -> None:
        """Takes its place: threads, instructions, noise of its own, and the class of the contender."""
        os.environ.update(dict.fromkeys(_THREADS, str(self.job.threads)))
        import numpy as np
        import torch

        from .contenders import CONTENDERS

        self.kind = CONTENDERS[self.job.contender]
        os.environ.update(self.kind.environment)
        torch.set_num_threads(self.job.threads)
        # generators that were there before the process was forked would draw the same for everybody
        torch.seed()
        np.random.seed()

    def ready(self) -> dict[str, Any]:
        """Loads the libraries with a tiny table, then sets up; memory of the draws counts from there.

        Units: `setup_seconds` by the clock of the rounds, or the wall's where a contender has processes of its own.
        """
        import numpy as np
        import torch

        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        tiny = World(TINY, vectors_of(TINY), folder)
        self.kind.prepare(tiny)
        warm = self.kind(tiny)
        warm.draw(warm.inputs(tiny.tokens(TINY.batch)))
        self.world = World(self.job.case, torch.from_numpy(np.load(self.job.vectors)), folder)
        self.kind.prepare(self.world)
        clock = measuring.clock_of("cpu", self.job.threads)
        now = time.perf_counter if self.kind.has_processes else getattr(time, clock)
        peak, start = measuring.Peak("cpu"), now()
        self.contender = self.kind(self.world)
        seconds, held = now() - start, peak.mib()
        self.tokens = self.kind.step_tokens(self.job.case)
        self.peaks: list[float | None] = []
        self.once = measuring.timed(lambda: self.contender.draw(self.given), clock)
        return {
            "tokens": self.tokens,
            "setup_seconds": round(seconds, 3),
            "setup_mib": None if held is None else round(held, 1),
        }

    def step(self) -> float | None:
        """Seconds of one word for each of some tokens, which are other ones each time."""
        self.given = self.contender.inputs(self.world.tokens(self.tokens))
        peak = measuring.Peak("cpu")
        seconds = self.once()
        self.peaks.append(peak.mib())
        return seconds

    def memory(self) -> float | None:
        """MiB of the draws so far, the median of their peaks above set-up and inputs; the contender is let go."""
        del self.contender
        known = [peak for peak in self.peaks if peak is not None]
        return statistics.median(known) if known else None

    def probe_law(self) -> dict[str, Any]:
        """See `probe`."""
        from .probe import probe_law

        with tempfile.TemporaryDirectory() as folder:
            return probe_law(self.kind, Path(folder), self.job.quick)

    def probe_tail(self) -> dict[str, Any]:
        """See `probe`."""
        from .probe import probe_tail

        return probe_tail(self.kind, self.job.quick)

    def certificates(self) -> dict[str, float]:
        """Those of the table, by privkt, and how long they take."""
        import numpy as np
        import torch

        from .contenders.privkt_words import certificates

        certificates(World(TINY, vectors_of(TINY), Path()))
        return certificates(World(self.job.case, torch.from_numpy(np.load(self.job.vectors)), Path()))

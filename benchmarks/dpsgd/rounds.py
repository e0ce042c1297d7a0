"""One case: all contenders step in turn, round after round, so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cases import Case
from .contenders import CONTENDERS
from .worker import Failed, Job, Worker, context, write_reference

WARM_UP = 2
BASELINES = {"ratio_to_plain": "plain", "ratio_to_same_head": "same head"}
_QUIET = 0.02  # seconds in which the threads of the contender before stop spinning
Times = dict[str, list[float]]


def measure(case: Case, *, device: str, threads: int, repeats: int, only: Sequence[str]) -> dict[str, Any]:
    """The numbers of one case, or for each contender the reason why it has none.

    Units: milliseconds, MiB. Ratios are medians of the ratios within each round.
    """
    start = time.monotonic()
    absent = {name: "not asked for" for name in CONTENDERS if name not in only}
    absent |= {name: reason for name in only if (reason := CONTENDERS[name].absent(case)) is not None}
    found: dict[str, dict[str, Any]] = {name: {"absent": reason} for name, reason in absent.items()}
    where = context()
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.pt"
        process = where.Process(target=write_reference, args=(case, threads, expected))
        process.start()
        process.join()
        crew = _Crew()
        try:
            for name in CONTENDERS:
                if name not in absent:
                    job = Job(name, case, device, threads, WARM_UP + repeats, expected)
                    crew.hire(name, Worker(where, job))
            times = _rounds(crew, repeats)
            for name in crew.names():
                peak = crew.ask(name, "memory")
                found[name] = {**_times(name, times), "peak_mib": None if peak is None else round(peak, 1)}
            for name in crew.names():
                if CONTENDERS[name].private:
                    found[name]["probe"] = crew.ask(name, "probe", keep=True)
                crew.dismiss(name)
        finally:
            crew.dismiss(*crew.names())
    found |= {name: {"failed": reason} for name, reason in crew.failed.items()}
    ordered = {name: found[name] for name in CONTENDERS}
    return {"case": case.to_json(), "contenders": ordered, "seconds": round(time.monotonic() - start)}


class _Crew:
    """The contenders still at work, and why others stopped."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self.failed: dict[str, str] = {}

    def names(self) -> list[str]:
        return list(self._workers)

    def hire(self, name: str, worker: Worker) -> None:
        self._workers[name] = worker
        self.ask(name, "ready")

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


def _rounds(crew: _Crew, repeats: int) -> Times:
    """Seconds of each counted step; each round begins with another contender."""
    times: Times = {name: [] for name in crew.names()}
    for number in range(WARM_UP + repeats):
        names = crew.names()
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            time.sleep(_QUIET)
            seconds = crew.ask(name, "step")
            if seconds is not None and number >= WARM_UP:
                times[name].append(seconds)
    return {name: times[name] for name in crew.names()}


def _times(name: str, times: Times) -> dict[str, Any]:
    """Median, quartiles and ratios of one contender."""
    seconds = times[name]
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    ratios = {
        label: round(statistics.median(mine / theirs for mine, theirs in zip(seconds, times[base], strict=True)), 4)
        for label, base in BASELINES.items()
        if base in times
    }
    quartiles = [round(low * 1e3, 3), round(high * 1e3, 3)]
    return {"median_ms": round(median * 1e3, 3), "quartiles_ms": quartiles, "steps": len(seconds), **ratios}

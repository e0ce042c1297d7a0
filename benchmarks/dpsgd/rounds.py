"""One case: who takes part, the rounds, the memory, the probe, and why somebody is missing."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring

from .cases import Case
from .contenders import CONTENDERS
from .worker import PRELOAD, Bench, Job, write_reference

BASELINES = {"ratio_to_plain": "plain", "ratio_to_same_head": "same head", "ratio_to_hooks": "opacus hooks"}
_QUIET = 0.02  # seconds in which the threads of the contender before stop spinning


def measure(case: Case, *, device: str, threads: int, rounds: int, only: Sequence[str]) -> dict[str, Any]:
    """The numbers of one case, or for each contender the reason why it has none.

    Units: milliseconds, MiB. Ratios are medians of the ratios within each round.
    """
    start, load = time.monotonic(), measuring.load()
    found: dict[str, dict[str, Any]] = {}
    for name, kind in CONTENDERS.items():
        reason = "not asked for" if name not in only else kind.absent(case)
        if not case.timed and not kind.private:
            reason = "nothing to probe without privacy"
        if reason is not None:
            found[name] = {"absent": reason}
    taking_part = [name for name in CONTENDERS if name not in found]
    where = measuring.context(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected.pt"
        if case.probed:
            process = where.Process(target=write_reference, args=(case, threads, expected))
            process.start()
            process.join()
        crew = measuring.Crew()
        try:
            for name in taking_part:
                job = Job(name, case, device, threads, measuring.WARM_UP + rounds, expected)
                crew.hire(name, measuring.Worker(where, Bench, job))
                found[name] = {}
            if case.timed:
                _time(crew, rounds, found)
            for name in crew.names():
                if case.probed and CONTENDERS[name].private:
                    found[name]["probe"] = crew.ask(name, "probe", keep=True)
                crew.dismiss(name)
        finally:
            crew.dismiss(*crew.names())
    found |= {name: {"failed": reason} for name, reason in crew.failed.items()}
    ordered = {name: found[name] for name in CONTENDERS}
    seconds = round(time.monotonic() - start)
    return {"case": case.to_json(), "contenders": ordered, "seconds": seconds, "load": [load, measuring.load()]}


def _time(crew: measuring.Crew, rounds: int, found: dict[str, dict[str, Any]]) -> None:
    """Steps in turn, then each contender's peak, into `found`."""
    for name in crew.names():
        crew.ask(name, "ready")
    steps = {name: functools.partial(crew.ask, name, "step") for name in crew.names()}
    times = measuring.take_turns(steps, rounds, pause=_QUIET)
    for name in crew.names():
        seconds, peak = times[name], crew.ask(name, "memory")
        found[name] |= measuring.spread(seconds)
        found[name] |= {
            label: measuring.median_ratio(seconds, times[base]) for label, base in BASELINES.items() if base in times
        }
        found[name]["peak_mib"] = None if peak is None else round(peak, 1)

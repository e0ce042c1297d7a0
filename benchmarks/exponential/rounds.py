"""One case, or the probes: who takes part, the rounds, the memory, and why somebody is missing."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np

from .cases import Case, vectors_of
from .contenders import BASE, CONTENDERS
from .contenders.privkt_words import Listed
from .worker import PRELOAD, Bench, Job

Found = dict[str, dict[str, Any]]
_QUIET = 0.02  # seconds in which the threads of the contender before stop spinning


def measure(case: Case, *, threads: int, rounds: int, only: Sequence[str]) -> dict[str, Any]:
    """The numbers of one case, or for each contender the reason why it has none.

    Units: microseconds a token, MiB, seconds of set-up. `times_faster` is the median of the ratios to the first
    contender's time a token within each round.
    """
    start, load = time.monotonic(), measuring.load()
    found = _absent(case, only)
    result: dict[str, Any] = {"case": case.to_json()}
    where = measuring.context(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        try:
            np.save(file, vectors_of(case).numpy())
        except ModuleNotFoundError as missing:
            return {**result, "absent": str(missing)}
        crew = measuring.Crew()
        try:
            if case.certify:
                crew.hire("certificates", _worker(where, Job(Listed.name, case, threads, file)))
                result["certificates"] = crew.ask("certificates", "certificates", keep=True)
                crew.dismiss("certificates")
            for name in [name for name in CONTENDERS if name not in found]:
                crew.hire(name, _worker(where, Job(name, case, threads, file)))
                ready = crew.ask(name, "ready") if name in crew.names() else None
                if ready is not None:
                    found[name] = ready
            _time(crew, rounds, found)
        finally:
            crew.dismiss(*crew.names())
    found |= {name: {"failed": reason} for name, reason in crew.failed.items()}
    result["contenders"] = {name: {"guarantee": CONTENDERS[name].guarantee, **found[name]} for name in CONTENDERS}
    return {**result, "seconds": round(time.monotonic() - start), "load": [load, measuring.load()]}


def probes(*, threads: int, only: Sequence[str], quick: bool) -> dict[str, Any]:
    """What each contender's draws follow, or the reason why that is not known."""
    case = Case("probe", 2, 1)
    found = _absent(case, only)
    where, crew = measuring.context(PRELOAD), measuring.Crew()
    try:
        for name in [name for name in CONTENDERS if name not in found]:
            crew.hire(name, _worker(where, Job(name, case, threads, Path(), quick)))
            asked = {what: crew.ask(name, f"probe_{what}", keep=True) for what in ("law", "tail")}
            found[name] = {"stated": CONTENDERS[name].stated, **asked}
            crew.dismiss(name)
    finally:
        crew.dismiss(*crew.names())
    return {name: found[name] for name in CONTENDERS}


def _worker(where: Any, job: Job) -> measuring.Worker:
    return measuring.Worker(where, Bench, job, daemon=not CONTENDERS[job.contender].has_processes)


def _absent(case: Case, only: Sequence[str]) -> Found:
    reasons = {n: "not asked for" if n not in only else kind.absent(case) for n, kind in CONTENDERS.items()}
    return {name: {"absent": reason} for name, reason in reasons.items() if reason is not None}


def _time(crew: measuring.Crew, rounds: int, found: Found) -> None:
    """Draws in turn, then each contender's peak, into `found`."""
    steps = {name: functools.partial(crew.ask, name, "step") for name in crew.names()}
    times = measuring.take_turns(steps, rounds, pause=_QUIET)
    each = {name: [1e6 * seconds / found[name]["tokens"] for seconds in times[name]] for name in times}
    for name in crew.names():
        peak = crew.ask(name, "memory")
        found[name] |= measuring.spread(times[name])
        found[name]["microseconds_a_token"] = round(statistics.median(each[name]), 3)
        if BASE in each:
            found[name]["times_faster"] = measuring.median_ratio(each[BASE], each[name])
        found[name]["peak_mib"] = None if peak is None else round(peak, 2)

"""Contenders step in turn, round after round, so that a busy machine slows all of them; medians come out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WARM_UP = 1
_EVENTS = "cuda events"
Step = Callable[[], float | None]
Times = dict[str, list[float]]


def clock_of(device: str, threads: int) -> str:
    """With one thread the processor's own time, into which waiting for a busy machine does not count."""
    if device.startswith("cuda"):
        return _EVENTS
    return "process_time" if threads == 1 else "perf_counter"


def timed(call: Callable[[], Any], clock: str) -> Step:
    """A step that runs `call` and gives its seconds by a clock of `clock_of`; a GPU's own, from idle to idle."""
    if clock == _EVENTS:
        return lambda: _on_gpu(call)
    now: Callable[[], float] = getattr(time, clock)

    def step() -> float:
        start = now()
        call()
        return now() - start

    return step


def _on_gpu(call: Callable[[], Any]) -> float:
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def take_turns(steps: Mapping[str, Step], rounds: int, *, warm_up: int = WARM_UP, pause: float = 0.0) -> Times:
    """Seconds of each counted step; each round begins with another contender.

    Units: `pause` is seconds before each step, in which the threads of the contender before stop spinning.
    Edge cases: a contender whose step gives None failed; it takes no further part and has no times.
    """
    times: Times = {name: [] for name in steps}
    for number in range(warm_up + rounds):
        names = list(times)
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            time.sleep(pause)
            seconds = steps[name]()
            if seconds is None:
                del times[name]
            elif number >= warm_up:
                times[name].append(seconds)
    return times


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles in milliseconds, and of how many."""
    low, median, high = (round(part * 1e3, 4) for part in statistics.quantiles(seconds, n=4, method="inclusive"))
    return {"median_ms": median, "quartiles_ms": [low, high], "rounds": len(seconds)}


def median_ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within each round, which noise that lasts longer than a round does not touch."""
    return round(statistics.median(a / b for a, b in zip(mine, theirs, strict=True)), 4)

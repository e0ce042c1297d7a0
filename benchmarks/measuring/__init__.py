"""What all benchmarks share: the machine in words, processes, turns, medians and quartiles, peak memory, JSON."""

from __future__ import annotations

from .files import add_case, options, write
from .machine import describe, load, slug
from .memory import Peak
from .rounds import WARM_UP, clock_of, median_ratio, spread, take_turns, timed
from .workers import Crew, Failed, Worker, context, reason

__all__ = [
    "WARM_UP",
    "Crew",
    "Failed",
    "Peak",
    "Worker",
    "add_case",
    "clock_of",
    "context",
    "describe",
    "load",
    "median_ratio",
    "options",
    "reason",
    "slug",
    "spread",
    "take_turns",
    "timed",
    "write",
]

"""What all benchmarks share: the machine in words, contenders in turn, medians and quartiles, peak memory, JSON."""

from __future__ import annotations

from .files import add_case, options, write
from .machine import describe, load, slug
from .memory import Peak
from .rounds import WARM_UP, clock_of, median_ratio, spread, take_turns, timed

__all__ = [
    "WARM_UP",
    "Peak",
    "add_case",
    "clock_of",
    "describe",
    "load",
    "median_ratio",
    "options",
    "slug",
    "spread",
    "take_turns",
    "timed",
    "write",
]

"""Uniform integers for many draws at once, exact and secure."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import numpy as np

from privkt_mechanisms.byte_table import Integers

Bytes = Callable[[int], bytes]
"""Fresh secure bytes, like `secrets.token_bytes`."""


def below(totals: Integers, source: Bytes = secrets.token_bytes) -> Integers:
    """One integer uniform in [0, total) for each total in [1, 2^63). Shapes: [n] in and out.

    Words among the first 2^64 mod total are drawn again, so that each value has equally many of the others.
    """
    limits = totals.astype(np.uint64)
    refused = (np.uint64(0) - limits) % limits
    found = np.zeros(limits.shape, dtype=np.uint64)
    left = np.arange(len(limits))
    while len(left):
        words = np.frombuffer(source(8 * len(left)), dtype=np.uint64)
        good = words >= refused[left]
        found[left[good]] = words[good] % limits[left[good]]
        left = left[~good]
    return found.astype(np.int64)

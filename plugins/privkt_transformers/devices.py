"""Where a model computes, in which precision, and what a lack of memory says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from privkt.contracts import BackendError
from privkt.privacy import RefusedInput

_FAST_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def pick_device(option: str) -> torch.device:
    """The device an option names; "auto" is the first CUDA device, else the processor."""
    if option == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(option)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RefusedInput(f"device: {option!r} needs a CUDA GPU, and torch sees none; use `device: auto`")
    return device


def pick_dtype(option: str, device: torch.device) -> torch.dtype:
    """The precision of frozen and inference weights; "auto" is bfloat16 where the hardware multiplies it."""
    if option != "auto":
        return torch.bfloat16 if option == "bfloat16" else torch.float32
    fast = device.type == "cuda" or (device.type == "cpu" and cpu_multiplies_bfloat16())
    return torch.bfloat16 if fast else torch.float32


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions; emulated ones are slower than float32."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
            break
    return bool(flags & _FAST_BF16_FLAGS)


def tokens_at_once(option: int | None, device: torch.device, *, generating: bool = False) -> int:
    """How many tokens one batch of inference holds.

    On a processor small batches are fastest: a thousand tokens keep it busy, their activations stay in its caches, and
    rows of one length meet (at sixteen thousand, news texts take four times as long, mostly in padding). While
    generating, a step computes one token a row: there many rows are wanted, and memory is the bound.
    """
    if option is not None:
        return option
    if device.type == "cpu":
        return 16_384 if generating else 1_024
    return 131_072 if generating else 32_768


@contextmanager
def memory_advice(what: str, remedy: str) -> Iterator[None]:
    """Turns an allocation that failed into a BackendError that says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise BackendError(f"{what}: ran out of device memory; {remedy}") from None
    except MemoryError:
        raise BackendError(f"{what}: ran out of memory; {remedy}") from None
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise BackendError(f"{what}: ran out of memory; {remedy}") from None
        raise

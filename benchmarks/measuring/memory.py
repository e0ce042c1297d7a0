"""Peak memory of a process, above what it held when its model was loaded.

On a CPU that is resident memory (Linux keeps its high-water mark, and lets a process set it back), so buffers of
native code and what an allocator keeps count as well; on a GPU it is what torch's allocator handed out.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Starts counting when it is made.

    Edge cases: `mib` is None where the system cannot tell.
    """

    def __init__(self, device: str) -> None:
        gc.collect()
        self._cuda = device.startswith("cuda")
        self._base: int | None
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._base = torch.cuda.memory_allocated()
        elif sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what an earlier, smaller model left behind
            _CLEAR.write_text("5")
            self._base = _kib("VmRSS")
        else:
            self._base = None

    def mib(self) -> float | None:
        """The most that was held since then, in MiB above the start."""
        if self._base is None:
            return None
        if self._cuda:
            return (torch.cuda.max_memory_allocated() - self._base) / 2**20
        return (_kib("VmHWM") - self._base) / 2**10


def _kib(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])

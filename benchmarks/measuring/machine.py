"""What a result was measured on, in words that name no machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from privkt import kernels


def describe(device: str, threads: int, packages: Sequence[str] = ("torch",)) -> dict[str, Any]:
    """Processor, threads, and the version of everything that takes part; None for a package that is not installed."""
    build = kernels.build_info()
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": threads,
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "privkt": build["version"],
        "privkt_source": _source(),
        "cpu_isa": build["cpu_isa"],
        "token_isa": build["token_isa"],
        "compiler": build["compiler"],
    }


def load() -> float | None:
    """How many processes wanted a processor in the last minute: what else the machine did, where it can tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def slug(machine: dict[str, Any]) -> str:
    """A file name's part: the processor that did the work."""
    words = machine["gpu"] or f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x.split(":", 1)[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    if importlib.util.find_spec(package) is None:
        return None
    return str(getattr(importlib.import_module(package), "__version__", "unknown"))  # fastDP, taken from its sources


def _source() -> str:
    """A short hash of privkt as it is measured: numbers of another one do not go into the same file."""
    spec = importlib.util.find_spec("privkt")
    native = importlib.util.find_spec("privkt.kernels._native")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = {file for folder in folders for part in ("dpsgd", "kernels") for file in (folder / part).glob("*.py")}
    if native is not None and native.origin is not None:
        files.add(Path(native.origin))
    return _digest(files)


def _digest(files: Iterable[Path]) -> str:
    """The same for the same files, in whatever order they come: two folders have modules of one name."""
    digest = hashlib.sha256()
    for name, file in sorted((f"{file.parent.name}/{file.name}", file) for file in files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]

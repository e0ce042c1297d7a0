"""`privkt doctor`: what was built, what is missing and why."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "dp-accounting",
    "pluggy",
    "sentence-transformers",
    "gguf",
)


def examine() -> dict[str, Any]:
    """Facts about this installation as JSON values; `problems` lists what would stop a run, with the way out."""
    import privkt
    from privkt.plugins import get_manager

    problems: list[str] = []
    facts: dict[str, Any] = {
        "privkt": privkt.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    try:
        from privkt import kernels

        facts["kernels"] = kernels.build_info()
        facts["kernels_private"] = kernels.is_private()
        if not kernels.is_private():
            problems.append(
                "PRIVKT_KERNELS=reference is set: the Python reference runs, and nothing it trains is private; unset it"
            )
    except Exception as error:
        facts["kernels"] = None
        problems.append(f"native kernels: {error}")
    import torch

    facts["cuda_device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    manager = get_manager()
    facts["plugins"] = [
        {"identity": p.identity, "version": p.version, "status": str(p.status), "reason": p.reason}
        for p in manager.plugins()
    ]
    problems += [
        f"plugin {p.identity} is {p.status}: {p.reason}"
        for p in manager.plugins()
        if str(p.status) in ("broken", "failing")
    ]
    facts["state_folder"] = str(_state_folder())
    facts["problems"] = problems
    return facts


def _state_folder() -> Any:
    from privkt.privacy.state import state_folder

    return state_folder()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

"""The options that all benchmarks have, and results as JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """--quick, --rounds, --threads and --out; one thread unless told, since its clock leaves waiting out."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny cases and few rounds: that it runs, not how fast")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"counted rounds ({rounds}; quick 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the kernels")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    return parser


def write(file: Path, result: dict[str, Any]) -> None:
    """The whole file or, if the process is ended meanwhile, the one before."""
    new = file.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(result, indent=1) + "\n")
    new.replace(file)


def add_case(file: Path, result: dict[str, Any], name: str, order: Sequence[str]) -> None:
    """Writes one case among those that the file has by now, so that several processes may fill one file (Linux)."""
    import fcntl

    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        cases = json.loads(file.read_text())["cases"] if file.exists() else {}
        cases[name] = result["cases"][name]
        result["cases"] = {known: cases[known] for known in sorted(cases, key=order.index)}
        write(file, result)
    finally:
        os.close(folder)

"""What the figures of the documentation are made of: committed results, and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MACHINE = "amd-epyc-2-cores"
Result = Mapping[str, Any]


def result(stem: str, machine: str = MACHINE) -> Result:
    """The committed result of a benchmark."""
    found: Result = json.loads((ROOT / "benchmarks" / "results" / f"{stem}-{machine}.json").read_text(encoding="utf-8"))
    return found


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])

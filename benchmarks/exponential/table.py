"""A result as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """One case: a line for each contender that was asked."""
    if "absent" in result:
        yield f"{name}: {result['absent']}"
        return
    case = result["case"]
    yield f"{name}: V {case['words']}, D {case['width']}, epsilon {case['epsilon']} ({result['seconds']} s)"
    yield f"  {'':40} {'us a token':>12} {'x faster':>9} {'tokens':>7} {'MiB':>8} {'set-up s':>9} {'MiB':>7}"
    for contender, found in result["contenders"].items():
        if found.get("absent") != "not asked for":
            yield f"  {contender:40} {_numbers(found)}"
    if "certificates" in result:
        yield f"  certificates: {result['certificates']}"


def probe_lines(result: dict[str, Any]) -> Iterator[str]:
    """What each contender's probes found."""
    for contender, found in result.items():
        if found.get("absent") != "not asked for":
            parts = [f"{name}: {value}" for name, value in found.items()]
            yield f"  {contender:40} {'; '.join(parts)}"


def _numbers(found: dict[str, Any]) -> str:
    for why in ("absent", "failed"):
        if why in found:
            return f"{why}: {found[why]}"
    cells = [f"{found['microseconds_a_token']:12.3f}", f"{found.get('times_faster', 0):9.4g}", f"{found['tokens']:7}"]
    cells += [_cell(found["peak_mib"], 8), f"{found['setup_seconds']:9.2f}", _cell(found["setup_mib"], 7)]
    return " ".join(cells)


def _cell(value: float | None, width: int) -> str:
    return ("-" if value is None else f"{value:.1f}").rjust(width)

"""A result as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    """One case: a line for each contender that was asked."""
    case = result["case"]
    shape = f"B {case['batch']}, T {case['length']}, V {case['words']}, d {case['width']}, {case['layers']} layers"
    yield f"{name}: {case['method']}, {shape}{', tied' if case['tied'] else ''} ({result['seconds']} s)"
    yield f"  {'':19} {'ms':>9} {'quartiles':>19} {'/plain':>7} {'/head':>7} {'MiB':>7} {'probe':>8} {'error':>8}"
    for contender, found in result["contenders"].items():
        if not found.get("absent", "").startswith(("not asked", "nothing to probe")):
            yield f"  {contender:19} {_numbers(found)}"


def _numbers(found: dict[str, Any]) -> str:
    for why in ("absent", "failed"):
        if why in found:
            return f"{why}: {found[why]}"
    parts = [" " * 53]
    if "median_ms" in found:
        low, high = found["quartiles_ms"]
        parts = [f"{found['median_ms']:9.1f}", f"{f'[{low:.1f}, {high:.1f}]':>19}"]
        parts += [_cell(found.get(ratio), 7, "{:.3f}") for ratio in ("ratio_to_plain", "ratio_to_same_head")]
        parts.append(_cell(found["peak_mib"], 7, "{:.0f}"))
    probe = found.get("probe")
    if probe is None:
        return " ".join(parts)
    if "failed" in probe:
        return f"{' '.join(parts)} probe failed: {probe['failed']}"
    parts += [_cell(probe["moved"], 8, "{:.4f}", "not finite"), _cell(probe["error"], 8, "{:.1e}", "not finite")]
    if probe["untrained"]:
        parts.append(f" {probe['untrained']} of {probe['parameters']} parameters stay as they were")
    return " ".join(parts)


def _cell(value: float | None, width: int, form: str, missing: str = "-") -> str:
    return (missing if value is None else form.format(value)).rjust(width)

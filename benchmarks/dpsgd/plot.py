"""A result as a picture: time and memory as shares of the plain path's, and how far one record moves the sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .cases import METHODS

_COLORS = {
    "same head": "#777777",
    "opacus hooks": "#d95f02",
    "opacus ghost": "#e6ab02",
    "fastdp": "#7570b3",
    "opake": "#1b9e77",
    "privkt": "#c2185b",
    "privkt checkpointed": "#f48fb1",
}
_STEP = 0.85 / len(_COLORS)
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
Value = Callable[[Mapping[str, Any], str], "float | None"]


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Writes a PNG: a row of panels for each method, and one for the probes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = result["cases"]
    timed = {
        method: {
            name: found["contenders"]
            for name, found in cases.items()
            if found["case"]["timed"] and found["case"]["method"] == method
        }
        for method in METHODS
    }
    timed = {method: found for method, found in timed.items() if found}
    probed = {name: found["contenders"] for name, found in cases.items() if not found["case"]["timed"]}
    rows = len(timed) + bool(probed)
    figure = pyplot.figure(figsize=(15, 1 + 3.2 * rows))
    grid = figure.add_gridspec(rows, 2)
    for row, (method, found) in enumerate(timed.items()):
        for column, (title, value) in enumerate((("step time", _time), ("peak memory", _memory))):
            axis = figure.add_subplot(grid[row, column])
            _bars(axis, found, value)
            axis.set_title(f"{method}: {title} / plain transformers", fontsize=10)
    if probed:
        axis = figure.add_subplot(grid[rows - 1, :])
        _bars(axis, probed, _moved)
        axis.set_title(
            "how far one record moves the clipped sum / clipping norm (above 1: epsilon is wrong)", fontsize=10
        )
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=color) for color in _COLORS.values()]
    figure.legend(handles, list(_COLORS), loc="upper center", ncols=len(_COLORS), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.4 / figure.get_figheight()))
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


def _bars(axis: Any, cases: Mapping[str, Mapping[str, Any]], value: Value) -> None:
    """Bars from 1 up or down, on a logarithmic axis; whoever failed or was absent has the word in place of a bar."""
    for number, (contender, color) in enumerate(_COLORS.items()):
        for place, found in enumerate(cases.values()):
            x, share = place + _STEP * (number - len(_COLORS) / 2 + 0.5), value(found, contender)
            if share is not None:
                axis.bar(x, share - 1, bottom=1, width=0.9 * _STEP, color=color)
                above = share >= 1
                text = {"s": f"{share:.2f}", "va": "bottom" if above else "top", "color": "black"}
                axis.text(x, share * (1.03 if above else 0.97), ha="center", fontsize=6, rotation=90, **text)
            elif word := _missing(found[contender]):
                axis.text(x, 1.03, word, ha="center", va="bottom", fontsize=6, rotation=90, color=color)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.7) / 1.25, max(high, 1.4) * 1.5)
    low, high = axis.get_ylim()
    axis.set_yticks([tick for tick in _TICKS if low < tick < high])
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(_nothing())
    axis.set_xticks(range(len(cases)), list(cases), fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _missing(found: Mapping[str, Any]) -> str | None:
    """Why a contender has no bar, in a word; None where nothing was asked of it."""
    if "failed" in found or "failed" in found.get("probe", {}):
        return "failed"
    return "not installed" if found.get("absent", "").endswith("is not installed") else None


def _time(found: Mapping[str, Any], contender: str) -> float | None:
    ratio: float | None = found[contender].get("ratio_to_plain")
    return ratio


def _memory(found: Mapping[str, Any], contender: str) -> float | None:
    peak, plain = (found[name].get("peak_mib") for name in (contender, "plain"))
    return None if peak is None or not plain else max(peak / plain, 0.01)


def _moved(found: Mapping[str, Any], contender: str) -> float | None:
    moved: float | None = found[contender].get("probe", {}).get("moved")
    return moved

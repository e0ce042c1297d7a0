"""A result as a picture: time and memory of each contender, as shares of the plain path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COLORS = {
    "same head": "#555555",
    "opacus hooks": "#d95f02",
    "opacus ghost": "#e6ab02",
    "fastdp": "#7570b3",
    "opake": "#1b9e77",
    "privkt": "#c2185b",
    "privkt checkpointed": "#f48fb1",
}


def draw(result: dict[str, Any], file: Path) -> None:
    """Writes a PNG. Bars above 1 cost more than training without privacy; a cross marks a probe above 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = result["cases"]
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 1.5 + 1.15 * len(cases)), sharey=True)
    step = 0.8 / len(_COLORS)
    for axis, title, value in zip(axes, ("step time", "peak memory"), (_time, _memory), strict=True):
        for number, (contender, color) in enumerate(_COLORS.items()):
            places, widths = [], []
            for row, case in enumerate(cases.values()):
                ratio = value(case["contenders"], contender)
                if ratio is not None:
                    places.append(row + step * (number - len(_COLORS) / 2 + 0.5))
                    widths.append(ratio)
                    if _unsound(case["contenders"][contender]):
                        axis.text(ratio, places[-1], " ✗", va="center", fontsize=8)
            axis.barh(places, widths, height=0.9 * step, color=color, label=contender)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xlabel(f"{title} / plain transformers")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(cases)), list(cases))
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False, fontsize=9)
    figure.supxlabel("✗: removing one record moves the sum by more than the clipping norm", fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / figure.get_figheight()))
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _time(found: dict[str, Any], contender: str) -> float | None:
    ratio: float | None = found[contender].get("ratio_to_plain")
    return ratio


def _memory(found: dict[str, Any], contender: str) -> float | None:
    peak, plain = (found[name].get("peak_mib") for name in (contender, "plain"))
    return None if peak is None or not plain else peak / plain


def _unsound(found: dict[str, Any]) -> bool:
    probe = found.get("probe") or {}
    return "moved" in probe and (probe["moved"] is None or probe["moved"] > 1.001)

"""Pictures of a report, as inline SVG without any outside asset."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping

from privkt.evaluation.report.summary import MetricSummary

# The method's own arm stands out; what is not private at all is grey and hatched, so that colour is not all there is.
MAIN, OTHER, NOT_PRIVATE, INK = "#1d4ed8", "#93b4f5", "#d3d7de", "#39404d"


def arms_chart(
    scores: Mapping[str, Mapping[str, MetricSummary]],
    metric: str,
    *,
    main: str | None = None,
    not_private: Collection[str] = (),
) -> str:
    """A bar an arm with its deviation over seeds, as an <svg> element whose text is text."""
    import matplotlib
    from matplotlib.figure import Figure

    arms = [arm for arm in scores if metric in scores[arm]]
    means = [scores[arm][metric].mean for arm in arms]
    deviations = [scores[arm][metric].deviation for arm in arms]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "privkt", "hatch.linewidth": 0.6}):
        figure = Figure(figsize=(8.6, 0.38 * len(arms) + 0.75))
        axes = figure.subplots()
        colours = [NOT_PRIVATE if arm in not_private else MAIN if arm == main else OTHER for arm in arms]
        hatches = ["///" if arm in not_private else "" for arm in arms]
        places = range(len(arms))
        errors = [d or math.nan for d in deviations]  # no bar for a single seed or no deviation
        axes.barh(
            places, means, xerr=errors, color=colours, hatch=hatches, edgecolor="white", height=0.66,
            error_kw={"ecolor": INK, "capsize": 3, "elinewidth": 1},
        )  # fmt: skip
        ends = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
        right = max(1.0, *ends)
        for place, (arm, mean, end) in enumerate(zip(arms, means, ends, strict=True)):
            weight = "bold" if arm == main else "normal"
            at = max(end, 0.0) + 0.015 * right
            axes.text(at, place, f"{mean:.3f}", va="center", fontsize=9, color=INK, weight=weight)
        axes.set_yticks(list(places), arms, fontsize=9)
        axes.invert_yaxis()
        low = min(0.0, *(mean - deviation for mean, deviation in zip(means, deviations, strict=True)))
        axes.set_xlim(low, right * 1.1)
        if right == 1.0 and low == 0.0:  # a share
            axes.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.set_xlabel(metric.replace("_", " "), fontsize=9, color=INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#c3c9d3")
        axes.tick_params(colors=INK, labelsize=9, length=0)
        figure.tight_layout(pad=0.4)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

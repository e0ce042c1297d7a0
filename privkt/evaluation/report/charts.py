"""Pictures of a report, as inline SVG without any outside asset."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from privkt.evaluation.report.summary import MetricSummary

# One hue for what is private or allowed to leave, a pale one for what is not private at all.
PRIVATE, NOT_PRIVATE, INK = "#2563eb", "#b0b7c3", "#39404d"


def arms_chart(scores: Mapping[str, Mapping[str, MetricSummary]], metric: str, not_private: Sequence[str] = ()) -> str:
    """A bar an arm with its deviation over seeds; arms trained on raw text sent elsewhere are pale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    arms = [arm for arm in scores if metric in scores[arm]]
    means = [scores[arm][metric].mean for arm in arms]
    deviations = [scores[arm][metric].deviation for arm in arms]
    figure, axes = plt.subplots(figsize=(7.2, 0.42 * len(arms) + 0.9))
    try:
        places = range(len(arms))
        colours = [NOT_PRIVATE if arm in not_private else PRIVATE for arm in arms]
        axes.barh(places, means, xerr=deviations, color=colours, height=0.62, error_kw={"ecolor": INK, "capsize": 3})
        # The largest deviation anywhere keeps every number clear of its error bar.
        room = max([0.0, *deviations])
        for place, mean in zip(places, means, strict=True):
            axes.text(mean + room + 0.01, place, f"{mean:.3f}", va="center", fontsize=9, color=INK)
        axes.set_yticks(list(places), arms, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, max(1.0, max(means, default=1.0) + room + 0.12))
        axes.set_xlabel(metric.replace("_", " "), fontsize=9, color=INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(colors=INK, labelsize=9)
        figure.tight_layout()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    finally:
        plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

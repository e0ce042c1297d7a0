"""Means and deviations over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSummary:
    """Mean and sample standard deviation (n - 1; 0 for a single seed) of one metric over seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.seeds < 2 else f"{self.mean:.3f} ± {self.deviation:.3f}"


def over_seeds(
    scores: Iterable[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, MetricSummary]]:
    """{arm: {metric: summary}} from one {arm: {metric: value}} a seed; arms keep their order of first appearance."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        for arm, metrics in one.items():
            for metric, value in metrics.items():
                gathered.setdefault(arm, {}).setdefault(metric, []).append(float(value))
    return {arm: {metric: _summary(values) for metric, values in metrics.items()} for arm, metrics in gathered.items()}


def _summary(values: list[float]) -> MetricSummary:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = statistics.fmean(values)
    if not math.isfinite(mean):
        raise ValueError("a score is not a finite number; the evaluation that made it is at fault")
    return MetricSummary(mean, deviation, len(values))

"""Token mechanisms whose loss grows with the distance of two words: what one unit of distance costs at most."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from privkt.privacy import Guarantee, Kind, Neighbouring, RefusedInput, Unit
from privkt_mechanisms.byte_table import LevelledTable, byte_table, levels_up_to
from privkt_mechanisms.calibration import CALIBRATIONS, asked, certificate_of, sharpest
from privkt_mechanisms.laws import IntegerLaw
from privkt_mechanisms.native_law import NativeLaw
from privkt_mechanisms.tokens import PROOF, TableMechanism, timing_of
from privkt_mechanisms.weights import decaying_weights

METRIC = "euclidean (int8 table)"
_UP = 1 + 1e-9


class MetricMechanism(TableMechanism):
    """Weights exp(-k min(d, gamma) / 2) over all words: k nats for each unit of distance, at most k gamma in all.

    `calibrate`: "exact" and "range" read `epsilon` as what any two words may cost, and find k; "metric" reads it as k.
    """

    def _set_up(
        self,
        table: ArrayLike,
        epsilon: Fraction | float | str,
        calibrate: str,
        gamma: float | None,
        unit_gamma: float,
        timing: str,
    ) -> None:
        """`gamma` in units of the table, or None for `unit_gamma` of the diameter."""
        self.calibrate, self.timing = calibrate, timing_of(self.name, timing)
        self.epsilon = asked(self.name, epsilon, calibrate, (*CALIBRATIONS, "metric"))
        self.table = byte_table(self.name, table)
        self.size = self.table.size
        self.diameter = float(np.sqrt(self.table.extremes[1])) / self.table.scale
        if gamma is not None and not gamma >= 0:
            raise RefusedInput(f"{self.name}: gamma must be a distance >= 0, got {gamma!r}; use the table's units")
        self.gamma = min(self.diameter, unit_gamma * self.diameter if gamma is None else gamma)
        whole = round((self.gamma * self.table.scale) ** 2)
        self.levelled = LevelledTable(self.table, levels_up_to(whole))
        # sharpness: what the two outermost weights cost, k gamma
        if calibrate == "metric":
            self.sharpness = self.epsilon * self.gamma
            if not np.isfinite(self.sharpness):
                raise RefusedInput(
                    f"{self.name}: epsilon times the largest distance must be a number that weights can hold, got "
                    f"{self.epsilon:g} times {self.gamma:g}; lower epsilon, or scale the table down"
                )
            self.law = self._law(self.sharpness)
            self._certificate = certificate_of(self.law, enumerate_law=True, bounded_range=True)
        else:
            self.sharpness, self.law, self._certificate = sharpest(
                self.name, self._law, self.epsilon, exactly=calibrate == "exact", bounded_range=True
            )

    def _law(self, sharpness: float) -> IntegerLaw:
        return NativeLaw(
            self.levelled,
            decaying_weights(sharpness, self.levelled.levels.last, self.size),
            fixed=self.timing == "fixed",
        )

    def distance(self, x: int, y: int) -> float:
        """The metric of the guarantee, in units of the table."""
        difference = self.table.rows[x].astype(np.int64) - self.table.rows[y]
        return float(np.sqrt((difference**2).sum())) / self.table.scale

    @cached_property
    def metric_epsilon(self) -> float:
        """A bound of the loss of any two words of the table over their distance; rounding down to levels is in it."""
        least, largest = self.table.extremes
        if not largest:
            return 0.0
        levels, logs = self.levelled.levels, np.log(self._law(self.sharpness).weights)
        last = levels.last
        # levels of any third word differ by at most one more than the level of the two (docs/proofs/tokens.md)
        apart = np.array([0.0] + [float((logs[:-k] - logs[k:]).max()) for k in range(1, last + 1)])
        first = int(levels.of(np.array([least]))[0])
        worst = 0.0
        for level in range(first, last + 1):
            near = np.sqrt(max(least, levels.least_square(level))) / self.table.scale
            worst = max(worst, 2 * apart[min(level + 1, last)] / near)
        return float(worst) * _UP

    @property
    def guarantee(self) -> Guarantee:
        """Nats for the whole diameter under the metric; `certificate` has what any two words cost."""
        scale = self.diameter if self.diameter > 0 else 1.0
        # the pure certificate is never above it, but for rounding
        epsilon = max(self.metric_epsilon * scale * _UP, self._certificate.epsilon)
        return Guarantee(
            Kind.METRIC,
            epsilon,
            unit=Unit.TOKEN,
            neighbouring=Neighbouring.LOCAL,
            proof=PROOF,
            metric=METRIC,
            metric_scale=scale,
        )

    def parameters(self) -> Mapping[str, Any]:
        return {
            **super().parameters(),
            "timing": self.timing,
            "gamma": self.gamma,
            "diameter": self.diameter,
            "metric_epsilon": self.metric_epsilon,
            "metric": METRIC,
        }

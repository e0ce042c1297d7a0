"""Discrete Gaussian noise on a vector on a grid, exactly, by the kernels of private training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from privkt.contracts.mechanism import Mechanism
from privkt.privacy import Guarantee, Kind, Neighbouring, RefusedInput, Unit, calibrate_noise, gaussian_event
from privkt.privacy import epsilon as epsilon_of_event
from privkt_mechanisms import exact
from privkt_mechanisms.vectors import CELLS, ClippedGrid

if TYPE_CHECKING:
    from dp_accounting import DpEvent


class Gaussian(Mechanism[Sequence[float], tuple[float, ...]]):
    """Clips `size` numbers to an L2 norm of `clip`, and adds noise proportional to exp(-k^2 / (2 sigma^2)).

    Units: values and `clip` alike; the grid has 2^20 cells a clip; `sigma` is in cells.
    Guarantee: (epsilon, delta) under `neighbouring` (docs/proofs/vectors.md): exact, on integers, with what the
        detour to an accountant of continuous noise costs taken from the noise and from delta.
    Raises: RefusedInput, for an epsilon outside (0, 500], a delta outside (0, 1), a clip or size that is none, values
        of another length.
    References: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy".
    """

    name = "gaussian"
    version = "1"

    def __init__(
        self,
        epsilon: Fraction | float | str,
        delta: float,
        size: int,
        clip: float = 1.0,
        *,
        unit: Unit | str = Unit.RECORD,
        neighbouring: Neighbouring | str = Neighbouring.ZERO_OUT,
    ) -> None:
        from privkt.kernels import accounted_sigma, representable_sigma

        exact_epsilon = exact.epsilon_of(self.name, epsilon)
        if not 0 < delta < 1:
            raise RefusedInput(f"{self.name}: delta must lie in (0, 1), got {delta!r}; below 1 / N is usual")
        self.grid = ClippedGrid(self.name, size, clip, 2)
        self.epsilon, self.delta = float(exact_epsilon), float(delta)
        relation = Neighbouring(neighbouring)
        tv = accounted_sigma(3.0)[1] * size
        slack = tv * (1 + math.exp(min(self.epsilon, 700.0)))
        if not slack < self.delta / 2:
            raise RefusedInput(
                f"{self.name}: delta must be above {2 * slack:.1g} for {size} numbers at epsilon {self.epsilon:g}, got "
                f"{delta!r}; use laplace for a delta of 0"
            )
        # the accountant knows that replacing moves a vector by two norms
        multiplier = calibrate_noise(self.epsilon, self.delta, 1.0, 1, relation, slack_delta=slack)
        self.sigma = representable_sigma(math.sqrt((multiplier * CELLS) ** 2 + 8.0))
        self.multiplier = accounted_sigma(self.sigma)[0] / CELLS
        cost = epsilon_of_event(self.event(), self.delta - slack, relation)
        self._guarantee = Guarantee(
            Kind.APPROXIMATE,
            max(cost, epsilon_of_event(self.event(), self.delta, relation)),
            self.delta,
            unit=unit,  # type: ignore[arg-type]
            neighbouring=relation,
            proof="docs/proofs/vectors.md",
        )

    def event(self) -> DpEvent:
        return gaussian_event(self.multiplier)

    @property
    def guarantee(self) -> Guarantee:
        return self._guarantee

    def sample(self, value: Sequence[float]) -> tuple[float, ...]:
        import torch

        from privkt.kernels import add_discrete_gaussian_, new_key

        total = torch.from_numpy(self.grid.cells(value))
        add_discrete_gaussian_(total, self.sigma, new_key(), 0)  # a key of its own for each vector
        return self.grid.values(total.tolist())

    def why_not_neighbours(self, one: Sequence[float], other: Sequence[float]) -> str | None:
        return self.grid.why_not_neighbours(one, other, self.guarantee.neighbouring)

    def parameters(self) -> Mapping[str, Any]:
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "size": self.grid.size,
            "clip": self.grid.clip,
            "cells": CELLS,
            "sigma": self.sigma,
        }

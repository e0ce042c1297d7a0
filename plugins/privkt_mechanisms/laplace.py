"""Discrete Laplace noise on a vector on a grid, exactly."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from privkt.contracts.mechanism import Mechanism
from privkt.privacy import Guarantee, Kind, Neighbouring, Unit, pure_event
from privkt_mechanisms import exact
from privkt_mechanisms.vectors import CELLS, ClippedGrid, sensitivity

if TYPE_CHECKING:
    from dp_accounting import DpEvent


class Laplace(Mechanism[Sequence[float], tuple[float, ...]]):
    """Clips `size` numbers to an L1 norm of `clip`, and adds noise proportional to exp(-epsilon |k| / sensitivity).

    Units: values and `clip` alike; the grid has 2^20 cells a clip.
    Guarantee: pure epsilon under `neighbouring` (docs/proofs/vectors.md): exact, on integers; replacing a value costs
        twice the noise of emptying it.
    Raises: RefusedInput, for an epsilon outside (0, 500], a clip or size that is none, values of another length.
    References: Dwork, McSherry, Nissim, Smith 2006; Canonne, Kamath, Steinke 2020, Algorithm 2.
    """

    name = "laplace"
    version = "1"

    def __init__(
        self,
        epsilon: Fraction | float | str,
        size: int,
        clip: float = 1.0,
        *,
        unit: Unit | str = Unit.RECORD,
        neighbouring: Neighbouring | str = Neighbouring.ZERO_OUT,
        below: exact.Below = secrets.randbelow,
    ) -> None:
        self.epsilon = exact.epsilon_of(self.name, epsilon)
        self.grid = ClippedGrid(self.name, size, clip, 1)
        self._guarantee = Guarantee(
            Kind.PURE,
            exact.rounded_up(self.epsilon),
            unit=unit,  # type: ignore[arg-type]
            neighbouring=neighbouring,  # type: ignore[arg-type]
            proof="docs/proofs/vectors.md",
        )
        self.rate = self.epsilon / sensitivity(self._guarantee.neighbouring)
        self._below = below

    def event(self) -> DpEvent:
        return pure_event(self._guarantee.epsilon)

    @property
    def guarantee(self) -> Guarantee:
        return self._guarantee

    def sample(self, value: Sequence[float]) -> tuple[float, ...]:
        cells = self.grid.cells(value)
        return self.grid.values([int(c) + exact.discrete_laplace(self.rate, self._below) for c in cells])

    def why_not_neighbours(self, one: Sequence[float], other: Sequence[float]) -> str | None:
        return self.grid.why_not_neighbours(one, other, self.guarantee.neighbouring)

    def parameters(self) -> Mapping[str, Any]:
        return {
            "epsilon": exact.shown(self.epsilon),
            "size": self.grid.size,
            "clip": self.grid.clip,
            "cells": CELLS,
        }

"""How much one private training or release may cost."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privkt.privacy.errors import InvalidBudget
from privkt.privacy.guarantee import Neighbouring, Unit

if TYPE_CHECKING:
    from privkt.privacy.ledger import Ledger


@dataclass(frozen=True)
class Budget:
    """The epsilon and delta a run asks for, and the ledger that is charged.

    Edge cases: `ledger=None` charges nothing and suits tests; `reproduce` allows a paper's delta >= 1/N, with
        a warning.
    Raises: InvalidBudget, for numbers that no data set of any size could be asked for.
    """

    epsilon: float
    delta: float
    ledger: Ledger | None = None
    unit: Unit = Unit.RECORD
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT
    reproduce: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InvalidBudget(
                f"budget.epsilon must be a finite number > 0, got {self.epsilon}; common values lie between 1 and 10"
            )
        if not 0 < self.delta < 1:
            raise InvalidBudget(
                f"budget.delta must lie strictly between 0 and 1, got {self.delta}; "
                "leave it out for min(1e-5, 1/(10 N))"
            )
        object.__setattr__(self, "unit", Unit(self.unit))
        object.__setattr__(self, "neighbouring", Neighbouring(self.neighbouring))

    def validate_for(self, n: int) -> None:
        """Refuse a delta that would allow publishing one of n units outright.

        Units: `n` counts declared units (users at user level).
        Raises: InvalidBudget, if n < 1, or delta >= 1/n without `reproduce`.
        """
        if n < 1:
            raise InvalidBudget(f"budget: the declared size must be at least 1, got {n}; declare `size` in the data")
        if self.delta * n < 1:
            return
        if not self.reproduce:
            raise InvalidBudget(
                f"budget.delta must stay below 1/N = {1 / n:.3g} for N = {n} {self.unit}s, got {self.delta:g}; "
                "leave it out for min(1e-5, 1/(10 N)), or set `reproduce: true` to repeat a paper's setting"
            )
        warnings.warn(
            f"budget.delta = {self.delta:g} is not below 1/N = {1 / n:.3g}: such a delta allows a whole {self.unit} "
            "to be published; kept only because `reproduce` is set",
            stacklevel=2,
        )

"""What a ledger answers: charges, their status, and what is spent and left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from privkt.privacy.guarantee import Guarantee, rounded_down, rounded_up


@dataclass(frozen=True)
class Charge:
    """A spend that the ledger acknowledged; `planned` is the guarantee it was charged for."""

    id: str
    sequence: int
    planned: Guarantee


@dataclass(frozen=True)
class ChargeStatus:
    """How far a charge came: reserved, stored or sent, with the hash of each named payload and the steps done."""

    id: str
    run_id: str
    purpose: str
    state: str
    stored: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)
    taken: int | None = None


@dataclass(frozen=True)
class Spent:
    """The data set's total by the ledger's filter; `infinite` if anything unprotected ever left."""

    epsilon: float
    delta: float
    infinite: bool
    filter: str

    def __str__(self) -> str:
        total = f"epsilon = {rounded_up(self.epsilon)}, delta = {rounded_up(self.delta, 3)} by the {self.filter} filter"
        if not self.infinite:
            return total
        return f"epsilon = inf: an unprotected release of this data set was forced; the rest adds up to {total}"


@dataclass(frozen=True)
class Left:
    """What the cap still allows, rounded down, as a number and where it is printed."""

    epsilon: float
    delta: float

    def __str__(self) -> str:
        return f"epsilon {rounded_down(self.epsilon)}, delta {rounded_down(self.delta, 3)}"


@dataclass(frozen=True)
class Cap:
    """The most that may be spent, as raised last."""

    epsilon: float
    delta: float

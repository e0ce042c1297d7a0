"""What a ledger answers: charges, their status, and what is spent and left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from privkt.privacy.guarantee import Guarantee, rounded_at, rounded_down, rounded_up

_EPSILON_DIGITS, _DELTA_DIGITS, _MOST_DIGITS = 4, 3, 9


@dataclass(frozen=True)
class Places:
    """The decimal places to which what a cap allows, what is spent and what is left are all printed.

    Guarantee: spent is rounded up, left down, and of a cap with up to nine digits the two printed numbers add up to it;
        of a cap that is spent but for a rounding error, 0 is left. At least so many places that the cap and what is
        spent keep four digits of epsilon and three of delta, of nine digits of the cap.
    """

    epsilon: int
    delta: int

    @classmethod
    def of(cls, cap: Cap, epsilon: float = 0.0, delta: float = 0.0) -> Places:
        """Those of a cap of which so much is spent."""
        return cls(_place(cap.epsilon, epsilon, _EPSILON_DIGITS), _place(cap.delta, delta, _DELTA_DIGITS))


def _place(cap: float, spent: float, digits: int) -> int:
    whole, used = Decimal(repr(float(cap))).normalize(), Decimal(repr(float(spent)))
    exponent = whole.as_tuple().exponent
    assert isinstance(exponent, int)  # a cap is finite
    found = min(exponent, whole.adjusted() - digits + 1)
    if used.is_finite() and used > 0:
        found = min(found, used.adjusted() - digits + 1)
    return max(found, whole.adjusted() - _MOST_DIGITS + 1)


@dataclass(frozen=True)
class Cap:
    """The most that may be spent, as raised last."""

    epsilon: float
    delta: float

    def said(self, places: Places) -> tuple[str, str]:
        """Epsilon and delta as they are printed, rounded up beyond nine digits."""
        return rounded_at(self.epsilon, places.epsilon, up=True), rounded_at(self.delta, places.delta, up=True)


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
    places: Places | None = field(default=None, compare=False, repr=False)

    @property
    def said(self) -> tuple[str, str]:
        """Epsilon and delta as they are printed, rounded up."""
        return _said(self, up=True)

    def __str__(self) -> str:
        total = "epsilon = {}, delta = {} by the {} filter".format(*self.said, self.filter)
        if not self.infinite:
            return total
        return f"epsilon = inf: an unprotected release of this data set was forced; the rest adds up to {total}"


@dataclass(frozen=True)
class Left:
    """What the cap still allows, rounded down, as a number and where it is printed."""

    epsilon: float
    delta: float
    places: Places | None = field(default=None, compare=False, repr=False)

    @property
    def said(self) -> tuple[str, str]:
        """Epsilon and delta as they are printed, rounded down."""
        return _said(self, up=False)

    def __str__(self) -> str:
        return "epsilon {}, delta {}".format(*self.said)


def _said(pair: Spent | Left, *, up: bool) -> tuple[str, str]:
    """Epsilon and delta to their ledger's places, or to so many digits where there is no ledger."""
    if pair.places is None:
        rounded = rounded_up if up else rounded_down
        return rounded(pair.epsilon, _EPSILON_DIGITS), rounded(pair.delta, _DELTA_DIGITS)
    return rounded_at(pair.epsilon, pair.places.epsilon, up=up), rounded_at(pair.delta, pair.places.delta, up=up)

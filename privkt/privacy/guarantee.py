"""What is promised: one guarantee, printed the same way everywhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from typing import Any

from privkt.privacy.errors import InvalidGuarantee

_WEAK = 20.0
_NUMBERS = ("epsilon", "delta", "rho", "metric_scale", "replace_one_epsilon")


class Unit(StrEnum):
    """Whose contribution is protected, from the smallest to the largest."""

    TOKEN = "token"
    DOCUMENT = "document"
    RECORD = "record"
    USER = "user"


class Neighbouring(StrEnum):
    """Which two data sets must look alike."""

    ADD_REMOVE = "add-remove"
    ZERO_OUT = "zero-out"
    REPLACE_ONE = "replace-one"
    LOCAL = "local"


class Kind(StrEnum):
    """What family the promise belongs to; `none` is an infinite spend."""

    PURE = "pure"
    APPROXIMATE = "approximate"
    ZCDP = "zcdp"
    METRIC = "metric"
    NONE = "none"


def default_delta(n: int) -> float:
    """The delta used where nobody names one: min(1e-5, 1/(10 n)) for n declared units."""
    if n < 1:
        raise InvalidGuarantee(f"default_delta: n must be a positive number of units, got {n}; declare it")
    return min(1e-5, 1 / (10 * n))


SAMPLER_SHARE = 1e-3
# What a private training in half precision assumes; plans are made before it is known whether one will be.
HALF_PRECISION = (
    "matrix kernels round each record alike whatever the other records of its batch are (half precision; all shapes "
    "are public)"
)


def sampler_share(delta: float) -> float:
    """The part of delta that every plan of a private training keeps for its noise sampler's distance from a Gaussian.

    A fixed share, so that a plan made before the number of trainable values is known is the plan that runs. A training
    whose sampler needs more than the share says so in its own, larger slack.
    """
    return SAMPLER_SHARE * delta


def rounded_up(value: float, digits: int = 4) -> str:
    """A number to `digits` significant digits, never smaller than it is; "inf" stays "inf"."""
    return _rounded(value, digits, ROUND_CEILING)


def rounded_down(value: float, digits: int = 4) -> str:
    """A number >= 0 to `digits` significant digits, never larger than it is."""
    return _rounded(value, digits, ROUND_FLOOR)


def rounded_at(value: float, place: int, *, up: bool) -> str:
    """A number >= 0 to a decimal place (-2: hundredths), rounded up, or down; "inf" stays "inf"."""
    if math.isinf(value):
        return "inf"
    direction = ROUND_CEILING if up else ROUND_FLOOR
    unit = Decimal((0, (1,), place))
    return _plain(Decimal(repr(float(value))).quantize(unit, direction, Context(prec=700)))


def _rounded(value: float, digits: int, direction: str) -> str:
    if math.isinf(value):
        return "inf"
    return _plain(Context(prec=digits, rounding=direction).create_decimal(Decimal(repr(float(value)))))


def _plain(near: Decimal) -> str:
    near = near.normalize()
    return f"{near:f}" if -4 <= near.adjusted() < 16 else f"{near:e}"


def weakness(epsilon: float, what: str) -> str | None:
    """What to warn of where epsilon for a whole `what` (a row, a text) is so large that it protects against little.

    Edge cases: None for an epsilon up to 20, and for an infinite one, of which other words are said.
    """
    if not _WEAK < epsilon < math.inf:
        return None
    said = rounded_up(epsilon)
    return (
        f"epsilon = {said} for a whole {what} protects against little: e^{said} bounds how much more likely one {what} "
        "may make what crosses than another"
    )


@dataclass(frozen=True)
class Guarantee:
    """A differential-privacy statement about one release or one plan.

    Units: `epsilon` is nats; for kind metric it is nats per `metric_scale` of distance under `metric`.
    Guarantee: `epsilon` at `delta` holds for `unit` under `neighbouring`, if every line of `conditional_on` is true;
        `replace_one_epsilon` is the same promise, same delta, for replacing instead of emptying one unit.
    Edge cases: kind none has epsilon = inf; kind pure and metric have delta = 0; kind zcdp needs `rho`.
    Raises: InvalidGuarantee, if the numbers contradict the kind.
    """

    kind: Kind
    epsilon: float
    delta: float = 0.0
    rho: float | None = None
    unit: Unit = Unit.RECORD
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT
    conditional_on: tuple[str, ...] = ()
    proof: str = ""
    metric: str | None = None
    metric_scale: float | None = None
    replace_one_epsilon: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("kind", Kind), ("unit", Unit), ("neighbouring", Neighbouring)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                known = ", ".join(kind)
                raise InvalidGuarantee(
                    f"Guarantee: {name} must be one of {known}, got {getattr(self, name)!r}; name one of them"
                ) from None
        for name in _NUMBERS:
            if getattr(self, name) is not None:  # numpy's scalars would print and compare differently
                object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "conditional_on", tuple(self.conditional_on))
        self._need(self.epsilon >= 0, "epsilon must be >= 0", self.epsilon)
        self._need(0 <= self.delta <= 1, "delta must lie in [0, 1]", self.delta)
        self._need(self.rho is None or 0 <= self.rho < math.inf, "rho must be finite and >= 0", self.rho)
        if self.kind is Kind.NONE:
            self._need(math.isinf(self.epsilon), "kind none must have epsilon = inf", self.epsilon)
        else:
            self._need(math.isfinite(self.epsilon), f"kind {self.kind} must have a finite epsilon", self.epsilon)
            self._need(self.delta < 1, f"kind {self.kind} must have delta below 1", self.delta)
        if self.kind in (Kind.PURE, Kind.METRIC):
            self._need(self.delta == 0, f"kind {self.kind} must have delta = 0", self.delta)
        if self.kind is Kind.ZCDP:
            self._need(self.rho is not None, "kind zcdp must state rho", self.rho)
        if self.kind is Kind.METRIC:
            self._need(bool(self.metric), "kind metric must name its metric", self.metric)
            scale = self.metric_scale
            self._need(scale is not None and 0 < scale < math.inf, "kind metric must state a scale > 0", scale)
        other = self.replace_one_epsilon
        self._need(other is None or other >= 0, "replace_one_epsilon must be >= 0", other)

    @staticmethod
    def _need(holds: bool, rule: str, came: object) -> None:
        if not holds:
            raise InvalidGuarantee(f"Guarantee: {rule}, got {came!r}; correct the mechanism that states it")

    @classmethod
    def none(
        cls, reason: str, *, unit: Unit = Unit.RECORD, neighbouring: Neighbouring = Neighbouring.ZERO_OUT
    ) -> Guarantee:
        """No promise at all, and why."""
        return cls(Kind.NONE, math.inf, 1.0, unit=unit, neighbouring=neighbouring, proof=reason)

    @property
    def is_private(self) -> bool:
        """Whether anything is promised."""
        return self.kind is not Kind.NONE

    def __str__(self) -> str:
        about = f"{self.unit} level, {self.neighbouring}"
        if not self.is_private:
            return f"no privacy guarantee (epsilon = inf), {about}: {self.proof or 'no reason given'}"
        text = f"epsilon = {rounded_up(self.epsilon)}"
        if self.metric is not None:
            text += f" per {self.metric_scale:g} of {self.metric} distance"
        text += f", delta = {rounded_up(self.delta, 3)}"
        if self.rho is not None:
            text += f" (rho = {rounded_up(self.rho)} zCDP)"
        text += f", {about}"
        if self.replace_one_epsilon is not None:
            text += f" (replace-one: epsilon = {rounded_up(self.replace_one_epsilon)})"
        if self.conditional_on:
            text += f"; conditional on {', '.join(self.conditional_on)}"
        return text

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` accepts; infinity is written as the string "inf"."""
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if isinstance(value, StrEnum):
                values[name] = str(value)
            elif isinstance(value, tuple):
                values[name] = list(value)
            elif isinstance(value, float) and math.isinf(value):
                values[name] = "inf"
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Guarantee:
        """The guarantee that `to_json` wrote; unknown or missing fields are refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            strange = sorted(set(values) ^ known)
            raise InvalidGuarantee(
                f"Guarantee: its JSON must have exactly the known fields, got a difference in {strange}; "
                "read it with the version that wrote it"
            )
        parsed: dict[str, Any] = {
            name: float(value) if name in _NUMBERS and value is not None else value for name, value in values.items()
        }
        return cls(**parsed)

"""Mechanisms: randomised functions of private values with a stated guarantee."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from privkt.privacy import Guarantee, Release

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Value = TypeVar("Value")
Output = TypeVar("Output")


class Mechanism(ABC, Generic[Value, Output]):
    """One mechanism with its parameters fixed from public information.

    Every subclass passes `privkt.testing.MechanismSuite`.
    """

    name: str = ""
    version: str = "1"

    @abstractmethod
    def event(self) -> DpEvent:
        """The accounting event of one `release`, from `privkt.privacy.accounting`'s factory."""

    @property
    @abstractmethod
    def guarantee(self) -> Guarantee:
        """What one `release` promises; kind `none` when nothing is proven."""

    @abstractmethod
    def sample(self, value: Value) -> Output:
        """One draw with secure randomness, no accounting: the caller has charged it."""

    def distribution(self, value: Value) -> Mapping[Hashable, float] | None:
        """{output: probability} for finite outputs, else None. Tests and certificates enumerate it."""
        return None

    def why_not_neighbours(self, one: Value, other: Value) -> str | None:
        """Why the guarantee does not compare two inputs, or None: as far as can be told, it does.

        Audits ask before they hold two inputs' draws against the guarantee.
        """
        return None

    def release(self, value: Value, *, data_set_id: str, charge: str | None = None) -> Release[Output]:
        """`sample` with its guarantee, event and provenance attached."""
        from privkt.privacy import Provenance

        return Release(
            payload=self.sample(value),
            guarantee=self.guarantee,
            event=self.event(),
            provenance=Provenance(
                mechanism=self.name, version=self.version, data_set_id=data_set_id, details=self.parameters()
            ),
            charge=charge,
        )

    def parameters(self) -> Mapping[str, Any]:
        """Public parameters as JSON values, for cards and provenance."""
        return {}

"""k-ary randomised response: one label out of a public set."""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from privkt.contracts.mechanism import Mechanism
from privkt.privacy import Guarantee, Kind, Neighbouring, Provenance, RefusedInput, Release, Unit, pure_event
from privkt_mechanisms import exact

if TYPE_CHECKING:
    from dp_accounting import DpEvent


class RandomisedResponse(Mechanism[str, str]):
    """Tells the true label with weight e^epsilon against 1 for each other label of a public set.

    Guarantee: pure epsilon for any two labels (docs/proofs/randomised_response.md). Weights are integers whose ratio is
        at most e^epsilon, so the epsilon holds for what is sampled, not for what was meant.
    Edge cases: more labels make the truth rarer: it is told with probability e^epsilon / (e^epsilon + k - 1).
    Raises: RefusedInput, for fewer than two labels, labels that repeat, or a value that is not a label.
    References: Kairouz, Oh, Viswanath 2014, "Extremal mechanisms for local differential privacy".
    """

    name = "randomised_response"
    version = "1"

    def __init__(
        self, labels: Sequence[str], epsilon: Fraction | float | str, *, below: exact.Below = secrets.randbelow
    ) -> None:
        self.labels = tuple(labels)
        if isinstance(labels, str) or len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise RefusedInput(
                f"{self.name}: labels must be at least two different names, got {len(self.labels)} "
                f"({len(set(self.labels))} different); declare the public set of labels"
            )
        self.epsilon = exact.epsilon_of(self.name, epsilon)
        self.truth_weight = exact.exponential_weight(self.epsilon)
        self._index = {label: i for i, label in enumerate(self.labels)}
        self._below = below

    def event(self) -> DpEvent:
        return pure_event(exact.rounded_up(self.epsilon))

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(
            Kind.PURE,
            exact.rounded_up(self.epsilon),
            unit=Unit.RECORD,
            neighbouring=Neighbouring.LOCAL,
            proof="docs/proofs/randomised_response.md",
        )

    @property
    def total_weight(self) -> int:
        """The sum of all weights, the same for every true label."""
        return self.truth_weight + (len(self.labels) - 1) * exact.WEIGHT_ONE

    def sample(self, value: str) -> str:
        truth = self._position(value)
        point = self._below(self.total_weight)
        if point < self.truth_weight:
            return self.labels[truth]
        other = (point - self.truth_weight) // exact.WEIGHT_ONE
        return self.labels[other if other < truth else other + 1]

    def distribution(self, value: str) -> Mapping[Hashable, float]:
        truth = self._position(value)
        return {
            label: (self.truth_weight if i == truth else exact.WEIGHT_ONE) / self.total_weight
            for i, label in enumerate(self.labels)
        }

    def release_column(
        self, values: Sequence[str], *, data_set_id: str, charge: str | None = None
    ) -> Release[tuple[str, ...]]:
        """One draw a record, in order: each record is told once, so the whole column costs a record one epsilon.

        Guarantee: that of one draw, if every record stands in one row (parallel composition). Their number is public.
        """
        return Release(
            payload=tuple(self.sample(value) for value in values),
            guarantee=self.guarantee,
            event=self.event(),
            provenance=Provenance(self.name, self.version, data_set_id, self.parameters()),
            charge=charge,
        )

    def parameters(self) -> Mapping[str, Any]:
        return {"epsilon": exact.shown(self.epsilon), "labels": list(self.labels)}

    def _position(self, value: str) -> int:
        try:
            return self._index[value]
        except (KeyError, TypeError):
            raise RefusedInput(
                f"{self.name}: a value must be one of the {len(self.labels)} declared labels "
                f"({', '.join(self.labels)}), got another; correct the data or declare it"
            ) from None

"""What the token mechanisms over a public table have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privkt.contracts import TokenMechanism
from privkt.privacy import Certificate, Guarantee, Kind, Neighbouring, RefusedInput, Unit, none_event, pure_event
from privkt_mechanisms.byte_table import ByteTable
from privkt_mechanisms.laws import Law

if TYPE_CHECKING:
    from dp_accounting import DpEvent

PROOF = "docs/proofs/tokens.md"

TIMINGS = ("fast", "fixed")


def timing_of(subject: str, timing: str) -> str:
    """Raises: RefusedInput, unless it is fast or fixed."""
    if timing not in TIMINGS:
        raise RefusedInput(f"{subject}: timing must be fast or fixed, got {timing!r}; name one of them")
    return timing


class TableMechanism(TokenMechanism):
    """A token mechanism whose law is that of `self.law` over `self.table`; subclasses set both and the certificate."""

    version = "1"
    law: Law
    table: ByteTable
    epsilon: float
    calibrate: str
    sharpness: float
    _certificate: Certificate

    def event(self) -> DpEvent:
        return pure_event(self._certificate.epsilon) if self.guarantee.is_private else none_event()

    @property
    def certificate(self) -> Certificate:
        return self._certificate

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee(
            Kind.PURE, self._certificate.epsilon, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL, proof=PROOF
        )

    def sample_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        self.need_ids(ids)
        return self.law.draw(ids.astype(np.int64).ravel()).reshape(ids.shape)

    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        self.need_ids(ids)
        return self.law.rows(ids.astype(np.int64))

    @property
    def probability_slack(self) -> float:
        return max(super().probability_slack, self.law.slack)

    def parameters(self) -> Mapping[str, Any]:
        certificate = self.certificate
        return {
            "epsilon": self.epsilon,
            "calibrate": self.calibrate,
            "sharpness": self.sharpness,
            "words": self.size,
            "table": self.table.digest,
            "epsilon_range": _number(certificate.epsilon_range),
            "epsilon_exact": _number(certificate.epsilon_exact),
        }


def _number(value: float | None) -> float | str | None:
    return "inf" if value is not None and np.isinf(value) else value

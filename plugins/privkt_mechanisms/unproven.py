"""Token mechanisms that exist for comparison and promise nothing."""

from __future__ import annotations

import math

from privkt.privacy import Certificate, Guarantee, Neighbouring, Unit
from privkt_mechanisms.tokens import TableMechanism


class Unproven(TableMechanism):
    """Kind none, an infinite certificate, an infinite spend, whatever its law; `reason` says why."""

    reason: str

    @property
    def certificate(self) -> Certificate:
        return Certificate(math.inf)

    @property
    def guarantee(self) -> Guarantee:
        return Guarantee.none(self.reason, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL)

"""The state of a ledger, read from its entries alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from privkt.privacy._chain import GENESIS, Entry
from privkt.privacy.errors import LedgerMismatch, LedgerMissing
from privkt.privacy.filters import Cost, Filter, left_of
from privkt.privacy.guarantee import Guarantee, Neighbouring, Unit
from privkt.privacy.spending import Cap, Charge, ChargeStatus, Left, Places, Spent

_FORMAT = 1


@dataclass(frozen=True)
class Account:
    """Everything that entries say, in the order they say it."""

    opened: dict[str, Any]
    filter: Filter
    charges: tuple[Entry, ...]
    marks: tuple[Entry, ...]
    head: str

    @classmethod
    def of(cls, name: str, entries: Sequence[Entry]) -> Account:
        """Read verified entries.

        Raises: LedgerMissing, if the ledger was never opened (a process died between making the file and writing);
            LedgerMismatch, if another version of privkt made it.
        """
        if not entries:
            raise LedgerMissing(f"ledger {name}: it must exist to be used, and it has no entry; make it first")
        opened = entries[0].body
        if opened.get("format") != _FORMAT:
            raise LedgerMismatch(
                f"ledger {name}: it must be of format {_FORMAT}, got {opened.get('format')}; open it with its maker"
            )
        cap = [entry.body for entry in entries if entry.kind == "cap"]
        latest = cap[-1] if cap else opened["cap"]
        return cls(
            opened=opened,
            filter=Filter(
                opened["filter"],
                latest["epsilon"],
                latest["delta"],
                Neighbouring(opened["neighbouring"]),
                opened["order"],
            ),
            charges=tuple(entry for entry in entries if entry.kind == "charge"),
            marks=tuple(entry for entry in entries if entry.kind in ("stored", "sent", "taken")),
            head=entries[-1].hash if entries else GENESIS,
        )

    @property
    def unit(self) -> Unit:
        """Whose contribution the ledger counts."""
        return Unit(self.opened["unit"])

    @property
    def costs(self) -> list[Cost]:
        """What each charge added."""
        return [_cost(entry.body) for entry in self.charges]

    def spent(self) -> Spent:
        """The total by the filter."""
        epsilon, delta = self.filter.total(self.costs)
        infinite = any(cost.infinite for cost in self.costs)
        return Spent(epsilon, delta, infinite, self.filter.name, Places.of(self.cap, epsilon, delta))

    def left(self) -> Left:
        """What the cap still allows; filters other than basic state every total at the cap's own delta."""
        rule, spent = self.filter, self.spent()
        epsilon = left_of(rule.cap_epsilon, spent.epsilon)
        delta = left_of(rule.cap_delta, spent.delta) if rule.name == "basic" else rule.cap_delta
        return Left(epsilon, delta, spent.places)

    @property
    def cap(self) -> Cap:
        """The most that may be spent."""
        return Cap(self.filter.cap_epsilon, self.filter.cap_delta)

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the data at the last charge."""
        return self.charges[-1].body["fingerprint"] if self.charges else None

    def find(self, charge_id: str) -> Entry | None:
        """The charge of this id."""
        return next((entry for entry in self.charges if entry.body["id"] == charge_id), None)

    def made_for(self, run_id: str, purpose: str) -> Entry | None:
        """The charge that this run made for this purpose."""
        wanted = (run_id, purpose)
        return next((e for e in self.charges if (e.body["run_id"], e.body["purpose"]) == wanted), None)

    def status(self, charge: Entry) -> ChargeStatus:
        """How far a charge came."""
        body = charge.body
        found = ChargeStatus(body["id"], body["run_id"], body["purpose"], "reserved")
        for mark in self.marks:
            said = mark.body
            if said["charge"] != body["id"]:
                continue
            if mark.kind == "taken":
                found = replace(found, taken=said["steps"])
            elif mark.kind == "stored":
                state = "sent" if found.sent else "stored"
                found = replace(found, state=state, stored={**found.stored, said["name"]: said["sha256"]})
            else:
                found = replace(found, state="sent", sent={**found.sent, said["name"]: said["sha256"]})
        return found


def charge_of(entry: Entry) -> Charge:
    """The charge as its maker got it."""
    return Charge(entry.body["id"], entry.sequence, Guarantee.from_json(entry.body["guarantee"]))


def _cost(body: dict[str, Any]) -> Cost:
    return Cost(*(float(body["cost"][key]) for key in ("epsilon", "delta", "divergence", "slack_delta")))

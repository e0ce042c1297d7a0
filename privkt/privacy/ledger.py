"""What is spent: one append-only account per named private data set. Spend before release."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.privacy import _rules, accounting, state
from privkt.privacy._account import Account, charge_of
from privkt.privacy._chain import Entry, canonical
from privkt.privacy._store import Store, Transaction
from privkt.privacy.errors import ChargeConflict, LedgerMismatch, LedgerTampered, RefusedInput
from privkt.privacy.filters import Filter
from privkt.privacy.guarantee import Guarantee, Neighbouring, Unit
from privkt.privacy.spending import Cap, Charge, ChargeStatus, Left, Places, Spent

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = ["Cap", "Charge", "ChargeStatus", "Ledger", "Left", "Places", "Spent"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Ledger:
    """The account of one named private data set.

    Guarantee: a charge that `charge` returned is on disk (fsync) and is never lost, by a crash at any moment or by
        other processes that write at once; the sum of all charges never exceeds the cap, except by forced ones.
    Edge cases: the chain finds edited, moved and removed entries; an older copy of the whole file is found only by
        `verify(expected_head)` with a head that was kept elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        #: What `charge` takes for its `same_data_confirmed` when it is not told: set by who opens the ledger for a run.
        self.same_data_confirmed = False
        account = self._account()
        if account.opened["name"] != self.name:
            raise LedgerMismatch(
                f"ledger {self.name}: its name must be the one it was made with, got a file made for "
                f"{account.opened['name']}; give the file its name back"
            )

    def __repr__(self) -> str:
        return f"Ledger({self.name!r})"

    @classmethod
    def open_or_create(
        cls,
        name: str,
        *,
        cap_epsilon: float,
        cap_delta: float,
        unit: Unit = Unit.RECORD,
        neighbouring: Neighbouring = Neighbouring.ZERO_OUT,
        size: int,
        filter: str = "basic",
        state: str | os.PathLike[str] | None = None,
    ) -> Ledger:
        """The ledger of the data set `name`, made if it is missing.

        Edge cases: an existing ledger keeps its cap and declared size, whatever is asked here; compare with `cap`.
        Raises: LedgerMismatch, if it was made for another unit, relation or filter.
        """
        unit, neighbouring = Unit(unit), Neighbouring(neighbouring)
        rule = Filter(filter, float(cap_epsilon), float(cap_delta), neighbouring)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise RefusedInput(f"ledger {name}: size must be a whole number >= 1, got {size!r}; declare the public N")
        store = Store(_state_path(name, state))
        store.create()
        with store.transaction() as transaction:
            if not transaction.entries:
                opened = {
                    "format": 1,
                    "name": name,
                    "data_set_id": secrets.token_hex(16),
                    "unit": str(unit),
                    "neighbouring": str(neighbouring),
                    "filter": rule.name,
                    "order": rule.order,
                    "cap": {"epsilon": rule.cap_epsilon, "delta": rule.cap_delta},
                    "size": size,
                }
                transaction.append("opened", opened)
        ledger = cls(store.path)
        _rules.need_same(name, ledger._account(), unit=unit, neighbouring=neighbouring, filter=rule.name)
        return ledger

    @classmethod
    def open(cls, name_or_path: str | os.PathLike[str], *, state: str | os.PathLike[str] | None = None) -> Ledger:
        """An existing ledger, by its data set's name or by its file.

        Raises: LedgerMissing, LedgerTampered.
        """
        path = Path(name_or_path)
        if path.suffix != ".sqlite3":
            path = _state_path(str(name_or_path), state)
        return cls(path.resolve())

    @property
    def name(self) -> str:
        """The declared name of the data set."""
        return self._store.name

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._store.path

    @property
    def data_set_id(self) -> str:
        """A random public id; the only name of this data set that may cross."""
        return str(self._account().opened["data_set_id"])

    @property
    def size(self) -> int:
        """The public N that was declared when the ledger was made."""
        return int(self._account().opened["size"])

    @property
    def unit(self) -> Unit:
        """Whose contribution is counted."""
        return self._account().unit

    @property
    def neighbouring(self) -> Neighbouring:
        """The relation of every charge."""
        return self._account().filter.neighbouring

    @property
    def filter(self) -> str:
        """The rule by which charges add up."""
        return self._account().filter.name

    @property
    def cap(self) -> Cap:
        """The most that may be spent."""
        return self._account().cap

    def fingerprint(self, rows: Iterable[bytes]) -> str:
        """HMAC of the rows under the local secret of this ledger's state folder; it never crosses."""
        return state.fingerprint(rows, self.path.parent.parent)

    def raise_cap(self, epsilon: float, delta: float, reason: str) -> None:
        """Allow more, as an entry that says why.

        Raises: RefusedInput, if a number would fall, none rises, or no reason is given.
        """
        with self._store.transaction() as transaction:
            old = Account.of(self.name, transaction.entries).filter
            grows = epsilon >= old.cap_epsilon and delta >= old.cap_delta
            if not grows or (epsilon, delta) == (old.cap_epsilon, old.cap_delta):
                raise RefusedInput(
                    f"ledger {self.name}: a cap is only raised; it is epsilon = {old.cap_epsilon:g}, delta = "
                    f"{old.cap_delta:g}, got epsilon = {epsilon:g}, delta = {delta:g}; ask for more of one and no "
                    "less of the other"
                )
            if not reason.strip():
                raise RefusedInput(
                    f"ledger {self.name}: a cap is raised with a reason, which stays on record, got none; say why"
                )
            Filter(old.name, float(epsilon), float(delta), old.neighbouring, old.order)
            transaction.append("cap", {"epsilon": float(epsilon), "delta": float(delta), "reason": reason})

    def charge(
        self,
        event: DpEvent,
        guarantee: Guarantee,
        *,
        run_id: str,
        purpose: str,
        fingerprint: str,
        declared: Mapping[str, Any],
        data_changed: bool = False,
        resume: bool = False,
        force: bool = False,
        slack_delta: float = 0.0,
        same_data_confirmed: bool | None = None,
    ) -> Charge:
        """Spend `guarantee` before anything runs; on disk when this returns.

        Units: `slack_delta` is the part of `guarantee.delta` that the noise sampler costs, outside `event`.
        Edge cases: (run_id, purpose) is charged once; `resume` gives back the charge that is already there if event,
            guarantee, fingerprint and declared parameters are equal, and makes it if it is not there. `force` records a
            release of kind none, which no cap stops. `data_changed` accepts another fingerprint under the same name,
            `same_data_confirmed` (None: as the ledger's attribute says) a new name for data that another ledger of this
            state folder already accounts for.
        Raises: BudgetExceeded, DataChanged, SameDataElsewhere, ChargeConflict, UnderstatedGuarantee,
            UnprotectedRelease, LedgerMismatch, LedgerTampered; nothing is spent then.
        """
        cost = _rules.cost_of(self.name, self._account(), event, guarantee, slack_delta, force)
        if same_data_confirmed is None:
            same_data_confirmed = self.same_data_confirmed
        asked = {
            "id": secrets.token_hex(16),
            "run_id": run_id,
            "purpose": purpose,
            "fingerprint": fingerprint,
            "event": accounting.event_to_json(event),
            "guarantee": guarantee.to_json(),
            "declared": dict(declared),
            "slack_delta": slack_delta,
            "cost": {key: str(value) if math.isinf(value) else value for key, value in asdict(cost).items()},
            "data_changed": data_changed,
            "same_data_confirmed": same_data_confirmed,
            "forced": force,
        }
        body = self._plain(asked)
        elsewhere = [] if same_data_confirmed else self._elsewhere(fingerprint)
        with self._store.transaction() as transaction:
            account = Account.of(self.name, transaction.entries)
            made = account.made_for(run_id, purpose)
            if made is not None:
                return charge_of(_rules.resumed(self.name, made, body, resume))
            _rules.need_data(self.name, account, fingerprint, data_changed, elsewhere)
            _rules.need_room(self.name, account, cost)
            charged = transaction.append("charge", body)
        return charge_of(charged)

    def check_data(self, fingerprint: str, *, data_changed: bool = False) -> None:
        """What `charge` would say to data of this fingerprint now; writes nothing.

        Raises: DataChanged, SameDataElsewhere.
        """
        elsewhere = [] if self.same_data_confirmed else self._elsewhere(fingerprint)
        _rules.need_data(self.name, self._account(), fingerprint, data_changed, elsewhere)

    def would_refuse(self, event: DpEvent, guarantee: Guarantee, *, slack_delta: float = 0.0) -> RefusedInput | None:
        """The error that `charge` would raise for this spend now, or None; writes nothing."""
        try:
            account = self._account()
            cost = _rules.cost_of(self.name, account, event, guarantee, slack_delta, False)
            _rules.need_room(self.name, account, cost)
        except RefusedInput as refusal:
            return refusal
        return None

    def stored(self, charge_id: str, payload_sha256: str, *, name: str = "release") -> ChargeStatus:
        """Record that the charge's final payload lies on disk; a second, different payload is refused."""
        return self._mark("stored", charge_id, payload_sha256, name)

    def sent(self, charge_id: str, payload_sha256: str, *, name: str = "release") -> ChargeStatus:
        """Record that a stored payload is about to leave, or leaves again; only stored bytes may."""
        return self._mark("sent", charge_id, payload_sha256, name)

    def taken(self, charge_id: str, steps: int) -> ChargeStatus:
        """Record how many steps were really done; for information, nothing is credited."""
        with self._store.transaction() as transaction:
            self._known(transaction, charge_id)
            transaction.append("taken", {"charge": charge_id, "steps": int(steps)})
            return self._known(transaction, charge_id)

    def status(self, charge_id: str) -> ChargeStatus:
        """How far a charge came."""
        account = self._account()
        found = account.find(charge_id)
        if found is None:
            raise self._unknown(charge_id)
        return account.status(found)

    def spent(self) -> Spent:
        """The data set's total by its filter."""
        return self._account().spent()

    def left(self) -> Left:
        """What the cap still allows, rounded down; spends under zcdp and rdp do not add in epsilon."""
        return self._account().left()

    def charges(self) -> tuple[Charge, ...]:
        """Every charge with what was planned for it, oldest first."""
        return tuple(charge_of(entry) for entry in self._account().charges)

    def events(self) -> list[DpEvent]:
        """Every charge's event, oldest first, so that anyone can account for them again."""
        return [accounting.event_from_json(entry.body["event"]) for entry in self._account().charges]

    def entries(self) -> tuple[Entry, ...]:
        """Every line, verified; for display, and private (it holds fingerprints)."""
        return tuple(self._store.read())

    def head(self) -> str:
        """The hash of the last entry; kept elsewhere, it tells an old copy from the newest."""
        return self._account().head

    def verify(self, expected_head: str | None = None) -> None:
        """Check the whole chain, and that it holds `expected_head`, if one was kept elsewhere.

        Raises: LedgerTampered, naming the first bad entry.
        """
        entries = self._store.read()
        if expected_head is not None and all(entry.hash != expected_head for entry in entries):
            raise LedgerTampered(
                f"ledger {self.name}: it must hold the head that was kept elsewhere, and entry {len(entries) + 1} and "
                "later are missing or others took their place; restore the newest copy, and charge nothing until then",
                entry=len(entries) + 1,
            )

    def statement(self) -> str:
        """One sentence for reports: what this data set has spent of its cap, and any infinite spend."""
        account = self._account()
        spent, cap = account.spent(), account.cap
        most = "epsilon = {}, delta = {}".format(*cap.said(Places.of(cap, spent.epsilon, spent.delta)))
        charges = len(account.charges)
        counted = f"{charges} charge" if charges == 1 else f"{charges} charges"
        about = f"{account.unit} level, {account.filter.neighbouring}, {counted}"
        return f"data set {self.name}: spent {spent}, of a cap of {most} ({about})"

    def _account(self) -> Account:
        return Account.of(self.name, self._store.read())

    def _plain(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` as it will be read back, so that like is compared with like."""
        try:
            return json.loads(canonical(body))
        except (TypeError, ValueError):
            raise RefusedInput(
                f"ledger {self.name}: run id, purpose, fingerprint and declared parameters are plain JSON values, and "
                "one is not; keep to text, finite numbers, booleans, lists and mappings"
            ) from None

    def _elsewhere(self, fingerprint: str) -> list[str]:
        return [] if self._account().fingerprint == fingerprint else _counted_beside(self.path, fingerprint)

    def _mark(self, kind: str, charge_id: str, payload_sha256: str, name: str) -> ChargeStatus:
        if not _SHA256.fullmatch(payload_sha256):
            raise ChargeConflict(
                f"ledger {self.name}: a payload is named by its SHA-256 in 64 lower-case hex digits, got "
                f"{len(payload_sha256)} characters; hash the stored bytes"
            )
        with self._store.transaction() as transaction:
            status = self._known(transaction, charge_id)
            _rules.need_payload(self.name, kind, charge_id, status.stored.get(name), payload_sha256, name)
            if (status.sent if kind == "sent" else status.stored).get(name) != payload_sha256:
                transaction.append(kind, {"charge": charge_id, "name": name, "sha256": payload_sha256})
            return self._known(transaction, charge_id)

    def _known(self, transaction: Transaction, charge_id: str) -> ChargeStatus:
        account = Account.of(self.name, transaction.entries)
        found = account.find(charge_id)
        if found is None:
            raise self._unknown(charge_id)
        return account.status(found)

    def _unknown(self, charge_id: str) -> ChargeConflict:
        return ChargeConflict(
            f"ledger {self.name}: a payload belongs to a charge of this ledger, got the id {charge_id}; "
            "use the id that `charge` returned"
        )


def check_new_name(name: str, fingerprint: str, *, state: str | os.PathLike[str] | None = None) -> None:
    """Refuse a name without a ledger for data that another ledger of the state folder counts.

    Raises: SameDataElsewhere.
    """
    _rules.need_new_name(name, _counted_beside(_state_path(name, state), fingerprint))


def _counted_beside(path: Path, fingerprint: str) -> list[str]:
    others = (other for other in sorted(path.parent.glob("*.sqlite3")) if other != path)
    return [store.name for store in map(Store, others) if store.mentions(fingerprint)]


def _state_path(name: str, folder: str | os.PathLike[str] | None) -> Path:
    return state.ledger_path(name, folder)

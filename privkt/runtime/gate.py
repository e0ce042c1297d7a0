"""The gate: the one way from a client to the server, and the record of everything that took it.

Pending bytes wait in `private/pending/` until their hash is in the ledger, the hooks and the reviewer agreed; then they
are written to `outbound/`, recorded, marked as sent, and only then delivered. What may have left is sent again byte for
byte, never drawn again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privkt.contracts import ClientId, Message
from privkt.plugins import PluginManager, ReleaseSummary, ReleaseVetoed
from privkt.privacy import ChargeConflict, Release
from privkt.runtime import wire
from privkt.runtime.accounts import Account, scope_id
from privkt.runtime.cards import Crossing, card, markdown
from privkt.runtime.errors import ReleaseRefused, WireError
from privkt.runtime.files import json_lines, make_folder, read_json, write_file, write_json
from privkt.runtime.run_directory import RunDirectory, scope_name

PUBLIC_FILE, PUBLIC_FOLDER = 0o644, 0o755

#: Shows a message, decoded from the very bytes that would leave, and answers whether it may.
Review = Callable[[ReleaseSummary, Message], bool]


@dataclass(frozen=True)
class _Passage:
    """Where one result is on its way out."""

    client: str
    step: str
    scope: str
    pending: Path
    final: Path
    note: Path
    leaves: bool
    charge: str | None

    @property
    def place(self) -> str:
        return f"{self.client}, step {self.step} ({self.scope})"


class Gate:
    """Lets Releases of one run out.

    `in_process`: every model that will read what crosses is in this process, so that a release of kind none stays in
    the run's private half. `force`: lets one out all the same and records an infinite spend.
    """

    def __init__(
        self,
        run: RunDirectory,
        accounts: Mapping[ClientId, Account],
        manager: PluginManager,
        *,
        columns: Collection[str] = (),
        review: Review | None = None,
        in_process: bool = False,
        force: bool = False,
    ) -> None:
        self._run = run
        self._accounts = accounts
        self._manager = manager
        self._columns = tuple(columns)
        self._review = review
        self._in_process = in_process
        self._force = force

    def send(self, client: ClientId, step: str, release: Any, *, seed: int | None = None) -> bytes:
        """The bytes that crossed; the same ones again if they may have crossed before.

        Guarantee: before it returns, the charge is in this client's ledger with the bytes' hash, the bytes are fsynced
        in `outbound/`, the manifest names them, and the ledger says sent.
        Raises: ReleaseRefused; the spend stays.
        """
        account = self._accounts[client]
        scope = scope_name(seed)
        if not isinstance(release, Release):
            raise ReleaseRefused(
                f"{client}, step {step}: only a Release crosses, got {type(release).__name__}; return what a mechanism "
                "released, or an Outcome from the last step"
            )
        leaves = self._may_leave(account, step, scope, release)
        data, message = self._encoded(client, step, release)
        passage = self._passage(client, step, scope, message, leaves, release.charge)
        data = self._kept(passage, data, message)
        digest = wire.digest(data)
        if release.charge is not None:
            try:
                account.ledger.stored(release.charge, digest, name=f"{step}.{scope}")
            except ChargeConflict as conflict:
                raise ReleaseRefused(str(conflict)) from None
        crossing = self._crossing(passage, release, message, data, digest, account)
        if not passage.final.exists():
            self._ask(crossing, str(release.guarantee), data)
            make_folder(passage.final.parent, PUBLIC_FOLDER)
            write_file(passage.final, data, PUBLIC_FILE)
        if leaves:
            self._record(crossing, release, account)
        if release.charge is not None:
            account.ledger.sent(release.charge, digest, name=f"{step}.{scope}")
            self._run.keep_head(account.ledger.name, account.ledger.head())
        passage.pending.unlink(missing_ok=True)
        return data

    def manifest(self) -> list[Crossing]:
        """Everything that crossed, in order."""
        return read_manifest(self._run)

    def _may_leave(self, account: Account, step: str, scope: str, release: Release[Any]) -> bool:
        """Whether the release goes to `outbound/` (else it stays in this process). Raises ReleaseRefused."""
        place = f"{account.client}, step {step}"
        if release.guarantee.is_private:
            self._check_charge(account, place, scope, release)
            return True
        if account.public:
            return True
        if self._force:
            account.charge_unprotected(
                scope_id(self._run.run_id, scope), f"unprotected: {step}", "a release of kind none was forced"
            )
            return True
        if self._in_process:
            return False
        raise ReleaseRefused(
            f"{place}: a release of kind none leaves only to models of this process or from data declared public, "
            "got a remote receiver; use a private mechanism or in-process backends, or force it and have an "
            "infinite spend recorded"
        )

    def _check_charge(self, account: Account, place: str, scope: str, release: Release[Any]) -> None:
        ledger = account.ledger
        if release.charge is None:
            raise ReleaseRefused(
                f"{place}: a release must carry the charge it was paid with, got none; charge it first"
            )
        try:
            charge, status = account.charge_of(release.charge)
        except ChargeConflict as conflict:
            raise ReleaseRefused(f"{place}: {conflict}") from None
        if not charge.planned.is_private:
            raise ReleaseRefused(f"{place}: its charge is of kind none; a private mechanism charges its own guarantee")
        if charge.planned != release.guarantee:
            raise ReleaseRefused(
                f"{place}: a release must promise what was charged, {charge.planned}, got {release.guarantee}; keep "
                "the mechanism's guarantee"
            )
        owners = {scope_id(self._run.run_id, scope), scope_id(self._run.run_id, scope_name(None))}
        if status.run_id not in owners:
            raise ReleaseRefused(f"{place}: its charge was made by another run or seed; use one that this run made")
        if release.provenance.data_set_id != ledger.data_set_id:
            raise ReleaseRefused(
                f"{place}: a release must carry the random id of its data set, and carries another; pass "
                "site.data_set_id to the mechanism"
            )

    def _encoded(self, client: str, step: str, release: Release[Any]) -> tuple[bytes, str]:
        try:
            return wire.encode(release.payload, self._columns), wire.type_name(release.payload)
        except WireError as error:
            raise ReleaseRefused(f"{client}, step {step}: {error}") from None

    def _passage(self, client: str, step: str, scope: str, message: str, leaves: bool, charge: str | None) -> _Passage:
        name = f"{step}.{scope}"
        pending = make_folder(self._run.private / "pending" / client)
        home = self._run.outbound if leaves else self._run.private / "unprotected"
        file = name + wire.SUFFIXES[message]
        return _Passage(
            client,
            step,
            scope,
            pending / file,
            home / client / file,
            pending / f"{name}.json",
            leaves,
            charge,
        )

    def _kept(self, passage: _Passage, data: bytes, message: str) -> bytes:
        """The first bytes ever made for this passage: noted by hash, on disk, and held against what is there now."""
        if not passage.note.exists():
            if passage.final.exists():
                raise ReleaseRefused(
                    f"{passage.place}: {passage.final.name} lies in outbound/ without a note of its hash in private/; "
                    "restore the run directory from a copy"
                )
            write_file(passage.pending, data)
            write_json(passage.note, {"sha256": wire.digest(data), "message": message, "charge": passage.charge})
            return data
        note = read_json(passage.note)
        place = next((p for p in (passage.final, passage.pending) if p.exists()), None)
        kept = data if place is None else place.read_bytes()
        if wire.digest(kept) != note["sha256"] or note["charge"] != passage.charge:
            what = f"the new draw for {passage.place}" if place is None else f"{place.parent.name}/{place.name}"
            raise ReleaseRefused(
                f"{passage.place}: {what} is not what was noted for its charge (sha256 {note['sha256']}), and nothing "
                "else may cross for it; restore the run directory from a copy, or start a new run, which is a new spend"
            )
        if place is None:
            write_file(passage.pending, kept)
        return kept

    def _crossing(
        self,
        passage: _Passage,
        release: Release[Any],
        message: str,
        data: bytes,
        digest: str,
        account: Account,
    ) -> Crossing:
        return Crossing(
            client=passage.client,
            step=passage.step,
            scope=passage.scope,
            message=message,
            rows=wire.row_count(wire.decode(data, self._columns)),
            size_bytes=len(data),
            sha256=digest,
            file=f"{passage.client}/{passage.final.name}",
            guarantee=release.guarantee.to_json(),
            data_set_id=account.ledger.data_set_id,
        )

    def _ask(self, crossing: Crossing, guarantee: str, data: bytes) -> None:
        summary = ReleaseSummary(
            client=crossing.client,
            step=crossing.step,
            message=crossing.message,
            rows=crossing.rows,
            size_bytes=crossing.size_bytes,
            sha256=crossing.sha256,
            guarantee=guarantee,
        )
        try:
            self._manager.before_release(summary)
        except ReleaseVetoed as veto:
            self._run.event("vetoed", client=crossing.client, step=crossing.step, scope=crossing.scope)
            raise ReleaseRefused(f"{crossing.client}, step {crossing.step}: {veto}; the spend stays") from None
        if self._review is not None and not self._review(summary, wire.decode(data, self._columns)):
            self._run.event("review said no", client=crossing.client, step=crossing.step, scope=crossing.scope)
            raise ReleaseRefused(
                f"{crossing.client}, step {crossing.step}: the reviewer said no, and nothing crossed; the spend stays, "
                "and another draw is another spend"
            )

    def _record(self, crossing: Crossing, release: Release[Any], account: Account) -> None:
        rows = read_manifest(self._run)
        if crossing not in rows:
            rows.append(crossing)
            lines = "".join(_line(row) for row in rows)
            write_file(self._run.outbound / "manifest.jsonl", lines.encode(), PUBLIC_FILE)
        if release.charge is None:
            return
        name = f"{crossing.client}.{release.charge}"
        notes = self._run.private / "pending" / crossing.client
        steps = {p.name.removesuffix(".json") for p in notes.glob("*.json") if _charge(p) == release.charge}
        mine = [r for r in rows if r.client == crossing.client and f"{r.step}.{r.scope}" in steps]
        values = card(release, mine, size=account.size)
        cards = make_folder(self._run.outbound / "cards", PUBLIC_FOLDER)
        write_json(cards / f"{name}.json", values, PUBLIC_FILE)
        write_file(cards / f"{name}.md", markdown(values).encode(), PUBLIC_FILE)


def read_manifest(run: RunDirectory) -> list[Crossing]:
    """Everything that crossed in a run, in order."""
    return [Crossing(**row) for row in json_lines(run.outbound / "manifest.jsonl")]


def _line(crossing: Crossing) -> str:
    return json.dumps(asdict(crossing), sort_keys=True) + "\n"


def _charge(note: Path) -> Any:
    return read_json(note)["charge"]

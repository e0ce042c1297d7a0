"""`privkt privatize` as a call: a file of private texts in, a file of noisy texts out, one charge between them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privkt.contracts import DataSource, Privacy, Progress, Rows, Texts
from privkt.plugins import PluginManager, ReleaseSummary, ReleaseVetoed, get_manager
from privkt.privacy import (
    Budget,
    BudgetExceeded,
    DocumentCost,
    Guarantee,
    Ledger,
    LedgerMissing,
    Neighbouring,
    RefusedInput,
    Release,
    Unit,
    default_delta,
)
from privkt.privacy.errors import ResumedOnOtherData
from privkt.privacy.guarantee import rounded_up
from privkt.privacy.ledger import Cap, Left, Places, check_new_name
from privkt.privacy.state import fingerprint
from privkt.runtime import wire
from privkt.runtime.cards import Crossing, card
from privkt.runtime.errors import ReleaseRefused
from privkt.runtime.files import write_file, write_json
from privkt.synthesis.noisy_texts import NoisyText, payload_digest
from privkt.synthesis.privatiser import PAYLOAD, UNITS, Record, TextPrivatiser

_SOURCES = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Account:
    """Whose texts they are: the data set's name and ledger settings. `delta` None: min(1e-5, 1/(10 N))."""

    name: str
    delta: float | None = None
    cap_epsilon: float | None = None
    cap_delta: float | None = None
    neighbouring: Neighbouring = Neighbouring.ZERO_OUT
    data_changed: bool = False
    new_name_confirmed: bool = False
    force: bool = False


@dataclass(frozen=True)
class Privatised:
    """What was done. `drawn`: the draws as they are stored. `cut`: how many texts were longer than k_max; both stay
    here, with the private texts."""

    output: Path
    store: Path
    card: Path
    release: Release[Texts]
    statement: str
    drawn: tuple[NoisyText, ...]
    cut: int


class PrivateTexts:
    """The rows of a file and their account; made before anything is spent.

    Raises: RefusedInput, for a file, column, encoding or id that cannot be read as told, or a delta that is not below
        1/N, before anything is written.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        account: Account,
        *,
        text: str = "text",
        id: str | None = None,
        manager: PluginManager | None = None,
    ) -> None:
        self.account = account
        self.manager = manager or get_manager()
        self.rows = _read(Path(file), text, id, self.manager)
        self.size = len(self.rows)
        self.delta = default_delta(self.size) if account.delta is None else account.delta
        self._mark = fingerprint(self.rows.canonical())
        self._ledger = _existing(account.name)
        if self._ledger is None and not account.new_name_confirmed:
            check_new_name(account.name, self._mark)
        if self._ledger is not None:
            _need_same_cap(self._ledger, account)
        self.unit = self._ledger.unit if self._ledger is not None else Unit.RECORD
        self.neighbouring = self._ledger.neighbouring if self._ledger is not None else account.neighbouring
        Budget(1.0, self.delta, None, self.unit, self.neighbouring).validate_for(self.size)

    def cost(self, privatiser: TextPrivatiser) -> DocumentCost:
        """What the ledger will be charged."""
        unit = self.unit if self.unit in UNITS else Unit.RECORD
        return privatiser.cost(self.delta, unit=unit, neighbouring=self.neighbouring)

    def left(self, cost: DocumentCost) -> tuple[Left, RefusedInput | None]:
        """What the data set has left before this spend, and why it would be refused, or None; writes nothing."""
        if self._ledger is None:
            cap = self._cap(cost.guarantee)
            return Left(*cap, Places.of(Cap(*cap))), self._over(cost.guarantee, cap)
        if not cost.guarantee.is_private:
            return self._ledger.left(), None
        return self._ledger.left(), self._ledger.would_refuse(cost.event, cost.guarantee)

    def privatise(
        self,
        privatiser: TextPrivatiser,
        output: str | os.PathLike[str],
        *,
        keep_ids: bool = False,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> Privatised:
        """Draws what is not drawn yet and writes `output` whole, beside its privacy card and its private store.

        Guarantee: when `output` appears, the charge, every draw and the hash of the draws are on the disk. Begun again
            after any interruption, and after the end, it gives the same bytes for the same charge; no other name of
            `output`, no copy of the store and no other `keep_ids` gives other draws for it.
        Raises: RefusedInput, ReleaseRefused.
        """
        self.need_place(output)
        output = Path(output).absolute()
        store, card_file = _store_of(output), output.with_name(f"{output.name}.card.json")
        cost = self.cost(privatiser)
        account = self.account
        if not cost.guarantee.is_private and not account.force:
            raise RefusedInput(
                f"data set {account.name}: a text without a guarantee ({cost.guarantee.proof}) leaves only by force; "
                "use another mechanism, or say --force and have an infinite spend recorded"
            )
        limit = cost.guarantee.epsilon if cost.guarantee.is_private else 1.0
        budget = Budget(limit or 1e-12, self.delta, None, cost.guarantee.unit, self.neighbouring)
        ledger = self._opened(cost.guarantee)
        budget = replace(budget, ledger=ledger)
        privacy = Privacy(
            budget, self.size, "", "privatize texts", self._mark, ledger.data_set_id, account.data_changed
        )
        records = [Record(i, t) for i, t in zip(self.rows.ids, self.rows.text, strict=True)]
        try:
            release = privatiser.release(
                records, store, privacy, batch_size=batch_size, progress=progress, force=account.force
            )
        except ResumedOnOtherData:
            raise ResumedOnOtherData(
                f"output: {store.name} holds draws of the rows that its spend began with, and the file has others now; "
                "restore the rows, or give another --output and say --data-changed, which is a new spend"
            ) from None
        data = _lines(release.payload, self.rows.ids if keep_ids else None)
        self._cross(release, data, output, card_file, ledger)
        drawn = tuple(privatiser.stored(records, store, privacy))
        cut = sum(len(privatiser.vocabulary.encode(t)) > privatiser.k_max for t in self.rows.text)
        return Privatised(output, store, card_file, release, ledger.statement(), drawn, cut)

    def need_place(self, output: str | os.PathLike[str]) -> None:
        """Raises RefusedInput, if `output` has no folder, or is a file that no store of draws lies beside."""
        output = Path(output).absolute()
        if not output.parent.is_dir():
            raise RefusedInput(f"output: {output.parent} must be a folder, and there is none; make it")
        if output.exists() and not _store_of(output).exists():
            raise RefusedInput(f"output: {output.name} must be new, and a file is there; name another, or remove it")

    def _opened(self, guarantee: Guarantee) -> Ledger:
        account = self.account
        if self._ledger is None:
            cap = self._cap(guarantee)
            if (refusal := self._over(guarantee, cap)) is not None:  # a ledger that could not pay for this is not made
                raise refusal
            self._ledger = Ledger.open_or_create(
                account.name,
                cap_epsilon=cap[0],
                cap_delta=cap[1],
                unit=self.unit,
                neighbouring=self.neighbouring,
                size=self.size,
            )
        self._ledger.same_data_confirmed = account.new_name_confirmed
        return self._ledger

    def _cap(self, guarantee: Guarantee) -> tuple[float, float]:
        """(epsilon, delta) of a ledger that is yet to be made: as asked, else what this costs, as it is printed."""
        epsilon = max(guarantee.epsilon, 1e-12) if guarantee.is_private else 1e-12
        account = self.account
        return (
            float(rounded_up(epsilon)) if account.cap_epsilon is None else account.cap_epsilon,
            float(rounded_up(self.delta, 3)) if account.cap_delta is None else account.cap_delta,
        )

    def _over(self, guarantee: Guarantee, cap: tuple[float, float]) -> BudgetExceeded | None:
        asked = (guarantee.epsilon, guarantee.delta) if guarantee.is_private else (0.0, 0.0)
        if asked[0] <= cap[0] and asked[1] <= cap[1]:
            return None
        return BudgetExceeded(
            f"data set {self.account.name}: a document must fit into the cap of epsilon = {cap[0]:g}, delta = "
            f"{cap[1]:g}, and costs {rounded_up(asked[0])}, {rounded_up(asked[1], 3)}; ask for less, or "
            "declare a higher cap",
            left=cap,
            asked=asked,
        )

    def _cross(self, release: Release[Texts], data: bytes, output: Path, card_file: Path, ledger: Ledger) -> None:
        """The gate of a file: its texts on the ledger, its bytes agreed to by every hook, whole."""
        digest, guarantee = wire.digest(data), release.guarantee
        assert release.charge is not None
        drawn = payload_digest(zip(self.rows.ids, release.payload.text, strict=True))
        if not output.exists() or output.read_bytes() != data:
            summary = ReleaseSummary(
                client=ledger.name,
                step="privatize",
                message="texts",
                rows=self.size,
                size_bytes=len(data),
                sha256=digest,
                guarantee=str(guarantee),
            )
            try:
                self.manager.before_release(summary)
            except ReleaseVetoed as veto:
                raise ReleaseRefused(f"data set {ledger.name}: {veto}; the spend stays") from None
        crossing = Crossing(
            ledger.name, "privatize", "shared", "texts", self.size, len(data), digest, output.name,
            guarantee.to_json(), ledger.data_set_id,
        )  # fmt: skip
        ledger.sent(release.charge, drawn, name=PAYLOAD)
        values = card(release, [crossing], size=self.size)
        values["mechanism"] = {**values["mechanism"], "parameters": dict(release.provenance.details)}
        write_json(card_file, values, 0o644)
        write_file(output, data, 0o644)


def _store_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.private")


def _need_same_cap(ledger: Ledger, account: Account) -> None:
    """A cap is set when the ledger is made: another one, asked for later, must not be passed over in silence."""
    there = ledger.cap
    asked = (account.cap_epsilon, account.cap_delta)
    if any(a is not None and a != b for a, b in zip(asked, (there.epsilon, there.delta), strict=True)):
        raise RefusedInput(
            f"data set {account.name}: its ledger was made, or raised, with a cap of epsilon = {there.epsilon:g} and "
            f"delta = {there.delta:g}, and another is asked for; leave it out, or raise it: privkt budget raise"
        )


def _existing(name: str) -> Ledger | None:
    try:
        return Ledger.open(name)
    except LedgerMissing:
        return None


def _read(path: Path, text: str, id: str | None, manager: PluginManager) -> Rows:
    source = _SOURCES.get(path.suffix.lower())
    if not path.is_file():
        raise RefusedInput(f"texts: no file at {path}; give JSONL, CSV or Parquet")
    if source is None:
        raise RefusedInput(
            f"texts: {path.name} must end with {', '.join(_SOURCES)}, so that it is known how to read it; rename it"
        )
    options: dict[str, Any] = {} if id is None else {"id": id}
    if path.suffix.lower() == ".tsv":
        options["delimiter"] = "\t"
    dataset = manager.create("dataset", source, DataSource(source, text, path=str(path), options=options))
    return dataset.load()


def _lines(texts: Texts, ids: tuple[str, ...] | None) -> bytes:
    rows: list[Mapping[str, str]]
    if ids is None:
        rows = [{"text": text} for text in texts.text]
    else:
        rows = [{"id": i, "text": text} for i, text in zip(ids, texts.text, strict=True)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

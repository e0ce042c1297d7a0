"""What a charge must satisfy; each rule raises with the ledger's name, the rule, what came and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from privkt.privacy import accounting
from privkt.privacy._account import Account
from privkt.privacy._chain import Entry
from privkt.privacy.errors import (
    BudgetExceeded,
    ChargeConflict,
    DataChanged,
    LedgerMismatch,
    RefusedInput,
    ResumedOnOtherData,
    SameDataElsewhere,
    UnderstatedGuarantee,
    UnprotectedRelease,
)
from privkt.privacy.filters import Cost, Filter
from privkt.privacy.guarantee import Guarantee, Kind, rounded_up

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_TOLERANCE = 1e-9  # relative; two accountants' rounding, never a promise


def need_same(name: str, account: Account, **asked: object) -> None:
    """Unit, relation and filter are those of the ledger."""
    held = {"unit": account.unit, "neighbouring": account.filter.neighbouring, "filter": account.filter.name}
    for what, value in asked.items():
        if held[what] != value:
            raise LedgerMismatch(
                f"ledger {name}: {what} stays what it was made with, {held[what]}, got {value}; "
                f"use {held[what]}, or convert the guarantee upwards (token to document to record to user)"
            )


def cost_of(name: str, account: Account, event: DpEvent, guarantee: Guarantee, slack_delta: float, force: bool) -> Cost:
    """What a spend adds; refuses guarantees below their event's cost, and unprotected ones that are not forced."""
    if not 0 <= slack_delta <= guarantee.delta:
        raise RefusedInput(
            f"ledger {name}: slack_delta is a part of the guarantee's delta = {guarantee.delta:g}, "
            f"got {slack_delta:g}; state a delta that covers it"
        )
    needed = math.inf
    if guarantee.is_private:
        need_same(name, account, unit=guarantee.unit, neighbouring=guarantee.neighbouring)
        needed = accounting.epsilon(event, guarantee.delta - slack_delta, guarantee.neighbouring)
        if guarantee.kind is not Kind.METRIC and guarantee.epsilon < needed * (1 - _TOLERANCE):
            raise UnderstatedGuarantee(
                f"ledger {name}: a guarantee must not promise less than its event costs, epsilon = "
                f"{rounded_up(needed)} at delta = {guarantee.delta - slack_delta:g}, got {guarantee.epsilon:g}; "
                "state the accountant's number"
            )
    if math.isinf(needed):
        if force:
            return Cost(math.inf, 1.0)
        raise UnprotectedRelease(
            f"ledger {name}: a release of kind none is an infinite spend and must be forced, got it unforced; "
            "use a private mechanism, an in-process backend or data declared public"
        )
    # A metric epsilon is per unit of distance; what adds up is its event's epsilon for any two inputs.
    epsilon = needed if guarantee.kind is Kind.METRIC else guarantee.epsilon
    return Cost(epsilon, guarantee.delta, account.filter.divergence(event), slack_delta)


def need_room(name: str, account: Account, cost: Cost) -> None:
    """All charges together stay within the cap; a forced infinite spend is beyond any cap."""
    rule = account.filter
    total = rule.total([*account.costs, cost])
    if cost.infinite or rule.holds(total):
        return
    left = account.left()
    raised = _to_raise(name, rule, total)
    raise BudgetExceeded(
        f"ledger {name}: all charges together must stay within the cap by the {rule.name} filter; asked "
        f"epsilon = {rounded_up(cost.epsilon)}, delta = {rounded_up(cost.delta, 3)}, left epsilon = "
        f"{left.said[0]}, delta = {left.said[1]}; ask for less, or raise the cap of {raised}",
        left=(left.epsilon, left.delta),
        asked=(cost.epsilon, cost.delta),
    )


def _to_raise(name: str, rule: Filter, total: tuple[float, float]) -> str:
    """Which part of the cap a total is above, and the command that raises it."""
    # a filter whose epsilon is infinite has too small a delta for the samplers' slack
    short = total[0] > rule.cap_epsilon and math.isfinite(total[0]), total[1] > rule.cap_delta or math.isinf(total[0])
    epsilon = "E" if short[0] else rounded_up(rule.cap_epsilon, 17)  # as it is, since a cap never falls
    delta = " --delta D" if short[1] else ""
    what = {(True, True): "both", (True, False): "epsilon"}.get(short, "delta")
    return f"{what}: `privkt budget raise {name} --epsilon {epsilon}{delta} --reason WHY`"


def need_data(name: str, account: Account, fingerprint: str, changed: bool, elsewhere: Sequence[str]) -> None:
    """The data is that of the last charge, or its change is said; other ledgers that count it are known."""
    held = account.fingerprint
    if held is not None and held != fingerprint and not changed:
        raise DataChanged(
            f"ledger {name}: data behind one name must stay the same between charges, and its fingerprint differs "
            "from the last; restore the data, or say --data-changed, which keeps what is spent"
        )
    if held != fingerprint:
        need_new_name(name, elsewhere)


def need_new_name(name: str, elsewhere: Sequence[str]) -> None:
    """No other ledger counts this data, unless that was confirmed."""
    if elsewhere:
        raise SameDataElsewhere(
            f"ledger {name}: one data set has one name, and this data is already accounted for as "
            f"{', '.join(elsewhere)}; use that name, or say --new-name-confirmed: what the ledgers spend adds up then"
        )


def resumed(name: str, made: Entry, asked: dict[str, Any], resume: bool) -> Entry:
    """The charge that is already there, if this is an unchanged resume of it."""
    held = made.body
    same = ("event", "guarantee", "declared", "fingerprint", "slack_delta")
    differing = [key for key in same if held[key] != asked[key]]
    if resume and not differing:
        return made
    if resume and differing == ["fingerprint"]:
        raise ResumedOnOtherData(
            f"ledger {name}: a run resumes with the data it began with, and its fingerprint differs; "
            "restore the data, or start a new run, which is a new spend"
        )
    what = f"resumed with another {', '.join(differing)}" if resume else "charged again"
    raise ChargeConflict(
        f"ledger {name}: a run is charged once for a purpose, and run {asked['run_id']}, purpose "
        f"{asked['purpose']} was {what}; resume it unchanged, or start a new run, which is a new spend"
    )


def need_payload(name: str, kind: str, charge_id: str, held: str | None, payload_sha256: str, file: str) -> None:
    """One charge, one final payload; only stored bytes are sent."""
    if held == payload_sha256 or (held is None and kind == "stored"):
        return
    rule = "one charge yields one final payload" if kind == "stored" else "only a stored payload may be sent"
    raise ChargeConflict(
        f"ledger {name}: {rule}, and charge {charge_id} has {held or 'none'} for {file!r}, got "
        f"{payload_sha256}; use the stored bytes, another draw is another spend"
    )

"""Each client's ledger during a run: opened last of all checks, its head kept with the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from privkt.config import BudgetConfig
from privkt.privacy import (
    Budget,
    BudgetExceeded,
    Guarantee,
    Kind,
    LedgerMissing,
    RefusedInput,
    SameDataElsewhere,
    compose,
    none_event,
)
from privkt.privacy.filters import Cost, Filter
from privkt.privacy.guarantee import rounded_up
from privkt.privacy.ledger import Cap, Charge, ChargeStatus, Ledger, Left, Places, Spent, check_new_name
from privkt.privacy.state import fingerprint
from privkt.runtime.preflight import ClientSetup


@dataclass(frozen=True)
class Account:
    """One client's ledger, opened, and the local fingerprint of its data."""

    client: str
    ledger: Ledger
    fingerprint: str
    size: int
    data_changed: bool
    public: bool

    def charge_of(self, charge_id: str) -> tuple[Charge, ChargeStatus]:
        """A charge of this ledger and how far it came. Raises ChargeConflict for an id of another ledger."""
        status = self.ledger.status(charge_id)
        return next(charge for charge in self.ledger.charges() if charge.id == charge_id), status

    def has_charge_of(self, run_id: str) -> bool:
        """Whether a run, under any of its seeds, has charged something."""
        charged = (entry.body["run_id"] for entry in self.ledger.entries() if entry.kind == "charge")
        return any(is_of_run(body, run_id) for body in charged)

    def charge_unprotected(self, run_id: str, purpose: str, reason: str) -> None:
        """Records an infinite spend, once for a run and purpose; every later statement about the data set says so."""
        guarantee = Guarantee.none(reason, unit=self.ledger.unit, neighbouring=self.ledger.neighbouring)
        self.ledger.charge(
            none_event(),
            guarantee,
            run_id=run_id,
            purpose=purpose,
            fingerprint=self.fingerprint,
            declared={},
            data_changed=self.data_changed,
            resume=True,
            force=True,
        )

    def total(self) -> AccountTotal:
        """What the data set has spent and has left."""
        return AccountTotal(
            self.client,
            self.ledger.name,
            self.ledger.spent(),
            self.ledger.left(),
            self.ledger.cap,
            self.ledger.statement(),
        )


@dataclass(frozen=True)
class AccountTotal:
    """A client's data set after a run: the total by its ledger's filter over every run, not this one alone."""

    client: str
    data_set: str
    spent: Spent
    left: Left
    cap: Cap
    statement: str


def open_account(
    setup: ClientSetup,
    *,
    run_id: str,
    data_changed: bool = False,
    same_data_confirmed: bool = False,
    head: str | None = None,
) -> Account:
    """The client's ledger, made if it is missing and nothing speaks against the run; checked as `left_of` does.

    `run_id`: of the run that goes on, or empty; `head`: the ledger's when the run last saw it.
    Raises: as `left_of`, and LedgerTampered, if the ledger does not hold `head`; nothing is spent or made then.
    """
    if head is not None:
        Ledger.open(setup.config.data.name).verify(head)
    left_of(setup, run_id=run_id, data_changed=data_changed, same_data_confirmed=same_data_confirmed)
    ledger = _ledger(setup)
    ledger.same_data_confirmed = same_data_confirmed
    data = setup.config.data
    return Account(setup.name, ledger, _fingerprint(setup), data.size, data_changed, data.public)


def caps(limits: BudgetConfig, budget: Budget) -> tuple[float, float]:
    """The cap of a ledger that has to be made: as configured, else this run's own epsilon and delta."""
    return (
        limits.epsilon if limits.cap_epsilon is None else limits.cap_epsilon,
        budget.delta if limits.cap_delta is None else limits.cap_delta,
    )


def check_clients(clients: Sequence[ClientSetup], *, same_data_confirmed: bool = False) -> None:
    """Refuses clients whose rows are the same: two epsilons for one data set add up, and no ledger would show it.

    Raises: SameDataElsewhere.
    """
    if same_data_confirmed:
        return
    seen: dict[str, ClientSetup] = {}
    for client in clients:
        first = seen.setdefault(_fingerprint(client), client)
        if first is not client:
            raise SameDataElsewhere(
                f"clients {first.name!r} and {client.name!r}: one data set has one name, and the rows of "
                f"{first.config.data.name} and {client.config.data.name} are the same; leave one client out, or say "
                "--new-name-confirmed: what the ledgers spend adds up then"
            )


def refusal_of(ledger: Ledger, setup: ClientSetup) -> RefusedInput | None:
    """Why the ledger would not take the client's plan as a whole, or None."""
    spends = setup.plan.spends
    if not spends:
        return None
    events = [spend.event() for spend in spends]
    first = spends[0].guarantee
    if len(spends) == 1:
        return ledger.would_refuse(events[0], first)
    together = Guarantee(
        Kind.APPROXIMATE,
        sum(spend.guarantee.epsilon for spend in spends),
        sum(spend.guarantee.delta for spend in spends),
        unit=first.unit,
        neighbouring=first.neighbouring,
    )
    return ledger.would_refuse(compose(events), together)


def left_of(
    setup: ClientSetup, *, run_id: str = "", data_changed: bool = False, same_data_confirmed: bool = False
) -> Left:
    """What the client's data set has left, if its ledger would take the plan as a whole; makes no ledger.

    Edge cases: a run that already charged something is left to the ledger, which gives it back its own charges.
    Raises: BudgetExceeded, DataChanged, SameDataElsewhere, LedgerMismatch, LedgerTampered.
    """
    name, mark = setup.config.data.name, _fingerprint(setup)
    try:
        ledger = Ledger.open(name)
    except LedgerMissing:
        if not same_data_confirmed:
            check_new_name(name, mark)
        return _left_of_new(setup)
    # Opening it again, as a run would, refuses another unit, relation or filter.
    ledger = _ledger(setup)
    ledger.same_data_confirmed = same_data_confirmed
    charged = [entry.body["run_id"] for entry in ledger.entries() if entry.kind == "charge"]
    if run_id and any(is_of_run(by, run_id) for by in charged):
        return ledger.left()
    ledger.check_data(mark, data_changed=data_changed)
    if (refusal := refusal_of(ledger, setup)) is not None:
        raise refusal
    return ledger.left()


def _left_of_new(setup: ClientSetup) -> Left:
    cap_epsilon, cap_delta = caps(setup.limits, setup.budget)
    rule = Filter(setup.limits.filter, cap_epsilon, cap_delta, setup.limits.neighbouring)
    total = rule.total(
        Cost(
            spend.guarantee.epsilon,
            spend.guarantee.delta,
            rule.divergence(spend.event()),
        )
        for spend in setup.plan.spends
    )
    if not all(spend.guarantee.is_private for spend in setup.plan.spends):
        total = (math.inf, 1.0)  # which a filter leaves aside
    if not rule.holds(total):
        raise BudgetExceeded(
            f"client {setup.name!r}: its plan must fit into the cap of epsilon = {cap_epsilon:g}, delta = "
            f"{cap_delta:g} by the {rule.name} filter, and asks for {rounded_up(total[0])}, "
            f"{rounded_up(total[1], 3)}; ask for less, or declare a higher cap",
            left=(cap_epsilon, cap_delta),
            asked=total,
        )
    return Left(cap_epsilon, cap_delta, Places.of(Cap(cap_epsilon, cap_delta)))


def _ledger(setup: ClientSetup) -> Ledger:
    """The ledger, made if it is missing."""
    limits, data = setup.limits, setup.config.data
    cap_epsilon, cap_delta = caps(limits, setup.budget)
    return Ledger.open_or_create(
        data.name,
        cap_epsilon=cap_epsilon,
        cap_delta=cap_delta,
        unit=limits.unit,
        neighbouring=limits.neighbouring,
        size=data.size,
        filter=limits.filter,
    )


def _fingerprint(setup: ClientSetup) -> str:
    """The same under every ledger of the state folder, so that equal data is seen under another name."""
    return fingerprint(setup.rows().canonical())


def with_ledger(budget: Budget, account: Account) -> Budget:
    """The budget that a client's step is given."""
    return replace(budget, ledger=account.ledger)


def scope_id(run_id: str, scope: str) -> str:
    """The run id under which a scope's steps charge: a seed's private training is a spend of its own."""
    return f"{run_id}.{scope}"


def is_of_run(charged: str, run_id: str) -> bool:
    """Whether a charge's run id belongs to this run."""
    return charged == run_id or charged.startswith(f"{run_id}.")


def statement(totals: Mapping[str, AccountTotal] | Sequence[AccountTotal]) -> str:
    """What all clients' ledgers say together, in one sentence a line."""
    listed = list(totals.values()) if isinstance(totals, Mapping) else list(totals)
    lines = [total.statement for total in listed]
    if len(listed) > 1:
        finite = [t.spent.epsilon for t in listed]
        if any(t.spent.infinite for t in listed):
            lines.append("over all clients: epsilon = inf for the data sets that say so")
        else:
            lines.append(
                f"over all clients: epsilon = {rounded_up(max(finite))} (the maximum) if no one has data at "
                f"two of them, which cannot be checked, otherwise up to {rounded_up(sum(finite))} (the sum)"
            )
    return "\n".join(lines)

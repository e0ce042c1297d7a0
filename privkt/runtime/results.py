"""What a run ends with, from memory or read again from its directory. It stays with the person who ran it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from privkt.contracts import ClientId, Outcome, Plan, Side, Step, TransferMethod
from privkt.runtime.accounts import AccountTotal, statement
from privkt.runtime.cards import Crossing
from privkt.runtime.run_directory import RunDirectory


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    `outcomes`: {client: {seed: Outcome}}; a client's last step runs once for all seeds: its outcome is under the first.
    `totals`: what each data set has spent over every run, and has left. `seconds`: this process's share.
    """

    path: Path
    run_id: str
    outcomes: Mapping[ClientId, Mapping[int, Outcome]]
    plans: Mapping[ClientId, Plan]
    totals: Mapping[ClientId, AccountTotal]
    crossed: tuple[Crossing, ...]
    seconds: float

    @property
    def statement(self) -> str:
        """What was spent, one line a data set, and what several clients' epsilons mean together."""
        return statement(self.totals)


def last_client_step(method: type[TransferMethod]) -> Step | None:
    """The step whose Outcome is a client's result."""
    return next((step for step in reversed(method.steps()) if step.side is Side.CLIENT), None)


def stored_outcomes(run: RunDirectory, method: type[TransferMethod]) -> dict[ClientId, dict[int, Outcome]]:
    """The outcomes in a run directory, as far as they exist; reads no data and no ledger."""
    step = last_client_step(method)
    found: dict[ClientId, dict[int, Outcome]] = {}
    config = run.config()
    for client in config.clients:
        mine = found.setdefault(client.name, {})
        if step is None:
            continue
        for seed in config.seeds[:1] if step.once else config.seeds:
            scope = None if step.once else seed
            if not run.is_done(client.name, step.name, scope):
                continue
            value = run.results(client.name, scope).load_result(step.name)
            if isinstance(value, Outcome):
                mine[seed] = value
    return found

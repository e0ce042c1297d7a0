"""Label tally: clients send every label through randomised response, the server counts, clients correct the counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from pydantic import Field

from privkt.contracts import (
    ClientId,
    ClientSite,
    MethodConfig,
    Outcome,
    Plan,
    PublicFacts,
    ServerSite,
    Texts,
    TransferMethod,
    client_step,
    server_step,
)
from privkt.plugins import get_manager
from privkt.privacy import Budget, Neighbouring, RefusedInput, Release

STORED = "noisy-labels"


class TallyConfig(MethodConfig):
    """`decimals`: to how many places estimates are rounded."""

    decimals: int = Field(default=2, ge=0, le=6, description="places after the point of an estimate")


class LabelTally(TransferMethod):
    """Estimates how often each label occurs, without any label being known."""

    name = "label-tally"
    Config = TallyConfig
    config: TallyConfig

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        labels = _labels(facts.labels)
        _need_local(budget)
        return Plan(
            bytes_out=facts.size * max(len(label.encode()) for label in labels),
            crosses=(f"{facts.size} noisy labels, each at epsilon = {budget.epsilon:g}",),
            not_covered=("the number of rows",),
        )

    @client_step
    def tell(self, site: ClientSite) -> Release[Texts]:
        """Send every label through randomised response."""
        if STORED in site.state:  # a crash came after the draw: what was drawn is what crosses
            return site.state.load_release(STORED)
        _need_local(site.budget)
        labels = _labels(site.data.labels)
        mechanism = get_manager().create("mechanism", "privkt:randomised_response", labels, site.budget.epsilon)
        rows = site.data.load()
        if rows.label is None:
            raise RefusedInput("label-tally: the data must have labels; add `label` to the data block")
        charge = None
        if site.budget.ledger is not None:  # spend first, then draw
            charge = site.budget.ledger.charge(
                mechanism.event(),
                mechanism.guarantee,
                run_id=site.run_id,
                purpose=STORED,
                fingerprint=site.data.fingerprint,
                declared={"size": site.data.size, **mechanism.parameters()},
                data_changed=site.data.data_changed,
                resume=True,
            ).id
        drawn = mechanism.release_column(rows.label, data_set_id=site.data_set_id, charge=charge)
        release: Release[Texts] = drawn.map(lambda labels: Texts(text=labels))
        site.state.save_release(STORED, release)
        return release

    @server_step
    def count(self, site: ServerSite, received: Mapping[ClientId, Texts]) -> Mapping[ClientId, Texts]:
        """Count the noisy labels."""
        site.state.save_json("rows", {client: len(told) for client, told in received.items()})
        counts = {client: Counter(told.text) for client, told in received.items()}
        return {
            client: Texts(text=tuple(str(counts[client][label]) for label in labels), label=labels)
            for client, labels in ((c, _labels(site.clients[c].labels)) for c in received)
        }

    @client_step
    def keep(self, site: ClientSite, tally: Texts) -> Outcome:
        """Correct the counts for the noise and keep them."""
        counts = {row.label or "": int(row.text) for row in tally}
        lie = 1 / (math.exp(site.budget.epsilon) + len(counts) - 1)
        gain = math.exp(site.budget.epsilon) * lie - lie
        expected_lies = lie * sum(counts.values())
        estimates = {k: round((count - expected_lies) / gain, self.config.decimals) for k, count in counts.items()}
        return Outcome(scores={"label tally": estimates}, notes={"told": counts})


def _labels(labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if not labels:
        raise RefusedInput("label-tally: the labels must be declared; add `labels: [...]` to the data block")
    return labels


def _need_local(budget: Budget) -> None:
    if budget.neighbouring is not Neighbouring.LOCAL:
        raise RefusedInput(
            f"label-tally: the budget's relation must be local, got {budget.neighbouring}; each label is told on its "
            "own, so write `neighbouring: local`"
        )

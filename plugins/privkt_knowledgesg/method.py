"""KnowledgeSG as a protocol: tune at the client, write, ask and teach at the server, load and score at the client.

Everything up to the teaching is done once for all seeds: one adapter crosses, and nobody is asked twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from privkt.config import DataConfig
from privkt.contracts import (
    Adapter,
    Backend,
    ClientId,
    ClientSite,
    MethodConfig,
    Outcome,
    Parcel,
    Plan,
    Prediction,
    PublicFacts,
    Rows,
    ServerSite,
    TransferMethod,
    client_step,
    public_digest,
    server_step,
)
from privkt.privacy import Budget, Release
from privkt.synthesis.planning import privacy_of
from privkt_knowledgesg import planning
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.pairs import PairTemplate, make_pair_template, names_of, read_pairs

TEXTS = "texts"


class KnowledgeSG(TransferMethod):
    """Synthetic text with knowledge distilled from the server.

    Guarantee: the adapter's training is the only access to private rows that leaves anything behind for others, and it
        is charged with all of its steps; instructions, filters, responses and the returned adapter are post-processing.
    References: Wang et al. 2024, arXiv 2410.05725.
    """

    name: ClassVar[str] = "knowledgesg"
    Config: ClassVar[type[MethodConfig]] = KnowledgeSGConfig
    client_roles: ClassVar[tuple[str, ...]] = ("base", "judge")
    server_roles: ClassVar[tuple[str, ...]] = ("base", "professional")
    optional_roles: ClassVar[tuple[str, ...]] = ("judge",)
    crossing_columns: ClassVar[tuple[str, ...]] = ("response", "arm")
    read_by: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("seeds", "writing", "filters", "professional"), "write"), "student": "distil",
        "scoring": "evaluate",
    }  # fmt: skip
    config: KnowledgeSGConfig

    @client_step(once=True)
    def tune(self, site: ClientSite) -> Release[Adapter]:
        """Fine-tuning an adapter under differential privacy"""
        from privkt_knowledgesg.tuning import tune_adapter

        if "adapter" in site.state:  # trained before a crash: the same adapter crosses, and nothing is paid twice
            return cast(Release[Adapter], site.state.load_release("adapter"))
        pairs = read_pairs(site.data.load(), self.config.fields, self._names(site.data.labels))
        release = tune_adapter(
            site.model("base"),
            pairs,
            self._template(),
            self.config.tuning,
            privacy=privacy_of(site, planning.PURPOSE),
            folder=site.folder / "adapter",
            seed=site.seed,
            progress=site.progress,
        )
        site.state.save_release("adapter", release)
        return release

    @server_step(once=True)
    def write(self, site: ServerSite, received: Mapping[ClientId, Adapter]) -> None:
        """Writing instructions with the adapter and asking the professional model for responses"""
        from privkt_knowledgesg.distilling import Server, to_texts

        reports: dict[ClientId, Any] = {}
        for client in sorted(received):
            names = self._names(site.clients[client].labels)
            server = Server(site, self.config, self._template(), _place(client), names)
            reports[client] = server.report
            try:
                pairs = server.answered(received[client])
            finally:  # the counts say why, if no pair was made
                site.state.save_json("report", reports)
            site.state.save(f"pairs-{_place(client)}", to_texts(pairs))
            site.state.save(f"adapter-{_place(client)}", received[client])

    @server_step
    def distil(self, site: ServerSite) -> Mapping[ClientId, Parcel]:
        """Teaching adapters with the responses"""
        from privkt_knowledgesg.distilling import Teaching

        teaching = Teaching(site, self.config, self._template())
        return {client: teaching.parcel(client) for client in sorted(site.clients)}

    @client_step
    def evaluate(self, site: ClientSite, taught: Parcel) -> Outcome:
        """Loading the adapter that came back, and scoring it"""
        from privkt_knowledgesg.results import score_arms

        return score_arms(site, self.config, self._template(), self._names(site.data.labels), taught)

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """The adapter's training, the questions to the professional model, what crosses."""
        return planning.make_plan(self.config, self._template(), facts, budget, self._names(facts.labels))

    def public_data(self) -> Sequence[DataConfig]:
        """The seeds."""
        return () if self.config.seeds is None else (self.config.seeds,)

    def check_rows(self, rows: Rows, facts: PublicFacts) -> None:
        """Every row is a pair of instruction and response."""
        read_pairs(rows, self.config.fields, self._names(facts.labels))

    def context_needed(self, facts: PublicFacts) -> Mapping[str, int]:
        """What prompts and answers of declared lengths take, with the public seeds of a file as they are."""
        return planning.context_needed(self.config, self._template(), self._names(facts.labels))

    def comparison(self) -> KnowledgeSGConfig:
        """Every baseline of the method's page."""
        every = tuple(arm for arm in Arm if arm is not Arm.KNOWLEDGESG)
        return self.config.model_copy(update={"baselines": every})

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """The likeliest answer to each text among the labels' names, or, where responses are free, the answer written.

        Units: `probability` is that of the label's name among all of them, or, of an answer that was written, the
            geometric mean of its tokens' after the prompt (0 for an empty one).
        """
        from privkt_knowledgesg.predicting import free_answers, label_predictions

        if not isinstance(outcome.model, Adapter):
            raise TypeError("knowledgesg: the outcome has no adapter; run the method to its end first")
        if not texts:
            return []
        model = models["base"].with_weights(outcome.model)
        if self.config.fields.response == "label":
            return label_predictions(model, self._template(), texts, self._names(labels))
        return free_answers(model, self._template(), texts, self.config.scoring.max_tokens)

    def _template(self) -> PairTemplate:
        return make_pair_template(self.config.template)

    def _names(self, labels: Sequence[str] | None) -> dict[str, str]:
        if labels is None:
            return {}
        are_responses = self.config.fields.response == "label"
        return names_of(labels, self.config.label_names) if are_responses else {label: label for label in labels}


def _place(client: ClientId) -> str:
    return public_digest(client)[:12]

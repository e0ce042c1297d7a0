"""FDKT as a protocol: tune and draw at the client, choose and write at the server, learn at the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from privkt.contracts import (
    Adapter,
    Backend,
    BackendError,
    Capability,
    ClientId,
    ClientSite,
    LabelledText,
    MethodConfig,
    Model,
    Outcome,
    Plan,
    Prediction,
    PublicFacts,
    ServerSite,
    Texts,
    TransferMethod,
    client_step,
    public_digest,
    server_step,
)
from privkt.privacy import Budget, RefusedInput, Release
from privkt.synthesis.arms import need_writer, possible_arms
from privkt.synthesis.finetune import tune_generator
from privkt.synthesis.planning import privacy_of
from privkt.synthesis.sampling import DRAWING, Sampled, draw_labelled
from privkt.synthesis.templates import Template, make_template
from privkt_fdkt import planning
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig

ARM_COLUMN = "arm"


class FDKT(TransferMethod):
    """Federated domain-specific knowledge transfer through synthetic data.

    Guarantee: the generator's training is the only access to private rows that leaves anything behind for others, and
        it is charged; D', clusters, prompts and D_a are post-processing. The final small model is not private.
    References: Li et al. 2024, arXiv 2405.14212.
    """

    name: ClassVar[str] = "fdkt"
    Config: ClassVar[type[MethodConfig]] = FDKTConfig
    client_roles: ClassVar[tuple[str, ...]] = ("generator", "slm", "local_llm")
    server_roles: ClassVar[tuple[str, ...]] = ("llm", "embedder")
    optional_roles: ClassVar[tuple[str, ...]] = ("embedder", "local_llm")
    crossing_columns: ClassVar[tuple[str, ...]] = (ARM_COLUMN,)
    read_by: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(DRAWING, "synthesize"),
        **dict.fromkeys(
            ("selection", "cluster_size", "prompts", "demonstrations", "labels_per_prompt", "llm"), "augment"
        ),
        "slm": "learn",
    }
    config: FDKTConfig

    @client_step(once=True)
    def tune(self, site: ClientSite) -> None:
        """Fine-tuning the generator under differential privacy"""
        template = self._template(site.id, site.data.labels)
        arms = self._possible_arms(site)
        rows = site.data.load()
        privacy = privacy_of(site, planning.PURPOSE)
        common: dict[str, Any] = {"seed": site.seed, "progress": site.progress}
        generator, recipe = site.model("generator"), self.config.generator
        release = tune_generator(
            generator, rows, template, recipe, folder=site.folder / "generator", privacy=privacy, **common
        )
        site.state.save_release("generator", release)
        if Arm.NO_NOISE in arms:
            bare = tune_generator(
                generator, rows, template, recipe, folder=site.folder / "no-noise", privacy=None, **common
            )
            if not isinstance(bare, Adapter | Model):
                raise TypeError("fdkt: a training without privacy must give an Adapter or a Model")
            site.state.save("generator-without-noise", bare)

    @client_step
    def synthesize(self, site: ClientSite) -> Release[Texts]:
        """Drawing synthetic texts from the private generator"""
        release = site.state.load_release("generator")
        drawn = release.map(
            draw_labelled,
            public={
                "backend": site.model("generator"),
                "template": self._template(site.id, site.data.labels),
                "rule": self.config.sampling_rule(site.seed),
                "progress": site.progress,
            },
        )
        site.state.save_json("drawing", drawn.payload.to_json())
        synthetic = drawn.map(_texts)
        site.state.save("synthetic", synthetic.payload)
        if not len(synthetic.payload):
            raise BackendError(
                "fdkt: the generator must write at least one valid text, got none; lower min_words, or raise "
                "max_tokens or attempts, and give the corrected config with --resume, unless another client or seed "
                "has drawn already (drawing again costs no budget)"
            )
        return synthetic

    @server_step
    def augment(self, site: ServerSite, received: Mapping[ClientId, Texts]) -> Mapping[ClientId, Texts]:
        """Choosing among the texts and writing new ones with the large model"""
        from privkt_fdkt.serving import serve

        answers: dict[ClientId, Texts] = {}
        reports: dict[ClientId, Any] = {}
        arms = [arm for arm in self.config.arms if arm.is_augmented]
        for client in sorted(received):
            facts = site.clients[client]
            rows, reports[client] = serve(
                tuple(received[client]),
                self._template(client, facts.labels),
                site.model("llm"),
                _embedder(site.models),
                self.config,
                arms,
                seed=site.seed,
                folder=site.folder / public_digest(client)[:12],
                progress=site.progress,
            )
            flat = [(row, arm) for arm, written in rows.items() for row in written]
            answers[client] = Texts(
                tuple(row.text for row, _ in flat),
                tuple(str(row.label) for row, _ in flat),
                {ARM_COLUMN: tuple(str(arm) for _, arm in flat)},
            )
        site.state.save_json("report", reports)
        return answers

    @client_step
    def learn(self, site: ClientSite, augmented: Texts) -> Outcome:
        """Training the small model on private and augmented texts"""
        from privkt_fdkt.results import learn_arms

        template = self._template(site.id, site.data.labels)
        arms = self._possible_arms(site)
        synthetic = tuple(site.state.load("synthetic"))
        foreign: dict[Arm, Sequence[LabelledText]] = {Arm.SYNTHETIC: synthetic, Arm.PRIVATE_SYNTHETIC: synthetic}
        foreign |= {arm: _rows_of_arm(augmented, arm) for arm in arms if arm.is_augmented}
        foreign |= self._open_arms(site, template, [arm for arm in arms if arm.is_open])
        return learn_arms(site, self.config, arms, template, foreign)

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """The generator's training, the questions to the large model, what crosses."""
        template = self._template(facts.name, facts.labels)
        if len(template.labels) < 2:
            raise RefusedInput(
                "data.labels must list at least two labels, got one: there is nothing to tell apart; declare the others"
            )
        need_writer(self.name, self.config.arms, facts, missing=self.config.missing_models)
        return planning.make_plan(self.config, template, facts, budget)

    def comparison(self) -> FDKTConfig:
        """Every baseline of the method's page."""
        every = tuple(arm for arm in Arm if arm is not Arm.FDKT)
        return self.config.model_copy(update={"baselines": every, "missing_models": "skip"})

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """The most probable label of each text by the final small model."""
        from privkt.synthesis.task_model import TaskModel

        if not isinstance(outcome.model, Adapter | Model):
            raise TypeError("fdkt: the outcome has no small model; run the method to its end first")
        template = make_template(self.config.template, labels)
        task = TaskModel(models["slm"], self.config.slm, template.names, seed=0)
        if not texts:
            return []
        found = task.probabilities(outcome.model, texts)
        return [Prediction(task.labels[int(row.argmax())], float(row.max())) for row in found]

    def _template(self, client: ClientId, labels: Sequence[str] | None) -> Template:
        return make_template(self.config.template, labels, domain=self.config.domains.get(client))

    def _open_arms(
        self, site: ClientSite, template: Template, arms: Sequence[Arm]
    ) -> dict[Arm, Sequence[LabelledText]]:
        """The arms without a guarantee: made here, by a model in this process, so that nothing crosses."""
        from privkt.synthesis.task_model import rows_of, sample_of_each
        from privkt_fdkt.serving import serve

        found: dict[Arm, Sequence[LabelledText]] = {}
        for arm in arms:
            if arm is Arm.RAW:
                shown = sample_of_each(rows_of(site.data.load()), self.config.samples_per_label, site.seed)
            else:
                weights = site.state.load("generator-without-noise")
                rule = self.config.sampling_rule(site.seed)
                shown = tuple(draw_labelled(weights, site.model("generator"), template, rule, site.progress).texts)
            # No folder: prompts that hold private text, and answers to them, are kept nowhere.
            written, _ = serve(
                shown,
                template,
                site.model("local_llm"),
                site.model("slm" if Capability.EMBED in site.model("slm").declared else "local_llm"),
                self.config,
                [arm],
                seed=site.seed,
                folder=None,
                progress=site.progress,
            )
            found[arm] = written[arm]
        return found

    def _possible_arms(self, site: ClientSite) -> tuple[Arm, ...]:
        """The config's arms; those without a guarantee only where a model of this process can write for them."""
        return possible_arms(self.name, self.config.arms, site, missing=self.config.missing_models)


def _texts(drawn: Sampled) -> Texts:
    return drawn.texts


def _rows_of_arm(texts: Texts, arm: Arm) -> tuple[LabelledText, ...]:
    arms = texts.columns[ARM_COLUMN]
    return tuple(row for row, own in zip(texts, arms, strict=True) if own == arm.value)


def _embedder(models: Mapping[str, Backend]) -> Backend:
    """The embedder if the config has one, else the large model, which must embed too."""
    return models["embedder"] if "embedder" in models else models["llm"]

"""FedCoT as a protocol: perturb at the client, explain at the server, decode and learn at the client.

All but the learning is done once for all seeds: what crosses is drawn once, and the same answers would come back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from privkt.config import DataConfig
from privkt.contracts import (
    Adapter,
    Backend,
    ClientId,
    ClientSite,
    MethodConfig,
    Model,
    Outcome,
    Plan,
    Prediction,
    PublicFacts,
    Rows,
    ServerSite,
    Texts,
    TransferMethod,
    client_step,
    public_digest,
    server_step,
)
from privkt.privacy import Budget, RefusedInput, Release
from privkt.synthesis.arms import need_writer, possible_arms
from privkt_fedcot import perturbing, planning
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from privkt_fedcot.decoding import Explained
from privkt_fedcot.tasks import Question, Task

KIND, QUESTION, PERTURBED, PLAIN = "kind", "question", "perturbed", "plain"
_OF_ROWS, _PUBLIC = "row", "public"


class FedCoT(TransferMethod):
    """Federated chain-of-thought distillation through perturbed questions.

    Guarantee: perturbed questions are the only thing of private rows that leaves, at the epsilon of a whole row; labels
        never leave. The final small model is not private.
    References: Fan et al. 2024, arXiv 2406.12403; Tong et al. 2023 (InferDPT); Hsieh et al. 2023.
    """

    name: ClassVar[str] = "fedcot"
    Config: ClassVar[type[MethodConfig]] = FedCoTConfig
    client_roles: ClassVar[tuple[str, ...]] = ("slm", "local_llm")
    server_roles: ClassVar[tuple[str, ...]] = ("llm",)
    optional_roles: ClassVar[tuple[str, ...]] = ("local_llm",)
    crossing_columns: ClassVar[tuple[str, ...]] = (
        perturbing.CHOICES,
        perturbing.CONTEXT,
        KIND,
        QUESTION,
        PERTURBED,
        PLAIN,
    )
    # Not `decoder` and `slm`: what a stopped step made with them already is kept.
    read_by: ClassVar[Mapping[str, str]] = {"rationale": "explain", "filter": "decode"}
    config: FedCoTConfig

    @client_step(once=True)
    def perturb(self, site: ClientSite) -> Release[Texts]:
        """Perturbing the questions, token by token"""
        if "perturbed" in site.state:  # drawn before a crash: the same draw crosses, and nothing is paid twice
            return cast(Release[Texts], site.state.load_release("perturbed"))
        task = self._task(site.data.labels)
        self._possible_arms(site)
        rows = site.data.load()
        questions = task.read(rows)
        task.need_answers(questions, list(rows.label or ()))
        release = perturbing.release(site, self.config.perturbation, task, questions)
        site.state.save_release("perturbed", release)
        return release

    @server_step(once=True)
    def explain(self, site: ServerSite, received: Mapping[ClientId, Texts]) -> Mapping[ClientId, Texts]:
        """Asking the large model for rationales"""
        answers: dict[ClientId, Texts] = {}
        for client in sorted(received):
            task = self._task(site.clients[client].labels)
            questions = perturbing.from_texts(received[client], task)
            folder = site.folder / public_digest(client)[:12]
            written = self._rationales(site, task, questions, folder, "rows")
            rows = [Explained(question, question, text) for question, text in zip(questions, written, strict=True)]
            public = self._public(site, task, folder) if self.config.decoder.kind == "trained" else []
            answers[client] = _packed(task, rows, public)
        site.state.save_json(
            "report",
            {
                client: {"questions": len(received[client]), "rationales": sum(map(bool, texts.text))}
                for client, texts in answers.items()
            },
        )
        return answers

    @client_step(once=True)
    def decode(self, site: ClientSite, explained: Texts) -> None:
        """Turning what came back into rationales for the true questions"""
        from privkt_fedcot.sources import Sources

        task = self._task(site.data.labels)
        perturbed = perturbing.from_texts(site.state.load_release("perturbed").payload, task)
        rows, public = _unpacked(task, explained, perturbed)
        questions = task.read(site.data.load())
        Sources(site, self.config, task, questions, rows, public).gather(self._trained_arms(site))

    @client_step
    def learn(self, site: ClientSite) -> Outcome:
        """Training the small model"""
        from privkt_fedcot.results import Arms

        return Arms(site, self.config, self._task(site.data.labels)).learn(self._trained_arms(site))

    def _trained_arms(self, site: ClientSite) -> tuple[Arm, ...]:
        """Without evaluation rows nothing can be compared, and only FedCoT's own arm is made."""
        arms = self._possible_arms(site)
        return arms if site.evaluation is not None else (Arm.FEDCOT,)

    def check_rows(self, rows: Rows, facts: PublicFacts) -> None:
        """Every row is a question with the choices that its label is one of."""
        task = self._task(facts.labels)
        task.need_answers(task.read(rows), list(rows.label or ()))

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """The perturbation, the questions to the large model, what crosses."""
        need_writer(self.name, self.config.arms, facts, missing=self.config.missing_models)
        return planning.make_plan(self.config, self._task(facts.labels), facts, budget)

    def public_data(self) -> Sequence[DataConfig]:
        """The questions that a decoder is trained on."""
        decoder = self.config.decoder
        return (decoder.public,) if decoder.kind == "trained" and decoder.public is not None else ()

    def context_needed(self, facts: PublicFacts) -> Mapping[str, int]:
        """What prompts of declared lengths take."""
        return planning.context_needed(self.config, self._task(facts.labels))

    def comparison(self) -> FedCoTConfig:
        """Every baseline of the method's page."""
        every = tuple(arm for arm in Arm if arm is not Arm.FEDCOT)
        return self.config.model_copy(update={"baselines": every, "missing_models": "skip"})

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """The most probable answer to each question by the final small model; nothing leaves this process.

        Raises: RefusedInput, for a task whose rows bring choices or passages that a text alone does not have.
        """
        from privkt.contracts import NoProgress
        from privkt_fedcot.learning import TaskModel

        if not isinstance(outcome.model, Adapter | Model):
            raise TypeError("fedcot: the outcome has no small model; run the method to its end first")
        task = self._task(labels)
        if task.has_choices or task.config.context is not None:
            raise RefusedInput(
                "fedcot: predict reads one text a row, and this task's rows have choices or passages too; use "
                "privkt_fedcot.learning.TaskModel with their questions"
            )
        model = TaskModel(models["slm"], self.config.slm, task, seed=0, progress=NoProgress())
        found = model.probabilities(outcome.model, [Question(text) for text in texts]) if texts else []
        return [Prediction(task.labels[int(row.argmax())], float(row.max())) for row in found]

    def _task(self, labels: Sequence[str] | None) -> Task:
        return Task(self.config.task, labels)

    def _rationales(
        self, site: ServerSite, task: Task, questions: Sequence[Question], folder: Any, name: str
    ) -> list[str]:
        from privkt_fedcot.rationales import explain

        return explain(
            questions,
            task,
            site.model("llm"),
            self.config.rationale,
            seed=site.seed,
            journal=folder / f"{name}.jsonl",
            progress=site.progress,
        )

    def _public(self, site: ServerSite, task: Task, folder: Any) -> list[Explained]:
        """Public questions, perturbed like the client's, with rationales of both forms."""
        from privkt.plugins import get_manager
        from privkt.runtime.preflight import source_of

        settings = self.config.perturbation
        data = self.config.decoder.public
        if data is None or settings.epsilon is None:
            raise RefusedInput(
                "fedcot.decoder: a trained decoder needs public data and perturbation.epsilon; give both"
            )
        rows = get_manager().create("dataset", data.source, source_of(data)).load()
        questions, parts = task.read(rows), task.parts(settings.tokens)
        if "perturbed-public" not in site.state:  # drawn once, so that a resumed step asks what it asked before
            epsilons = perturbing.epsilons_of(settings, parts, settings.epsilon)
            vocabulary = perturbing.vocabulary_of(settings.vocabulary)
            mechanisms = perturbing.mechanisms_of(settings, vocabulary, epsilons)
            drawn = perturbing.perturb(questions, task, parts, vocabulary, mechanisms)
            site.state.save("perturbed-public", perturbing.to_texts(drawn, task))
        perturbed = perturbing.from_texts(site.state.load("perturbed-public"), task)
        noisy = self._rationales(site, task, perturbed, folder, "public-perturbed")
        plain = self._rationales(site, task, questions, folder, "public")
        return [Explained(*row) for row in zip(questions, perturbed, noisy, plain, strict=True)]

    def _possible_arms(self, site: ClientSite) -> tuple[Arm, ...]:
        """The config's arms; those without a guarantee only where a model of this process can write for them."""
        return possible_arms(self.name, self.config.arms, site, missing=self.config.missing_models)


def _packed(task: Task, rows: Sequence[Explained], public: Sequence[Explained]) -> Texts:
    """Rationales of the client's rows in order, then those of public questions with what a decoder learns from."""

    def parts(question: Question) -> str:
        return json.dumps(task.split(question), ensure_ascii=False)

    nothing = ("",) * len(rows)
    return Texts(
        tuple(e.rationale for e in (*rows, *public)),
        None,
        {
            KIND: (_OF_ROWS,) * len(rows) + (_PUBLIC,) * len(public),
            QUESTION: nothing + tuple(parts(e.question) for e in public),
            PERTURBED: nothing + tuple(parts(e.perturbed) for e in public),
            PLAIN: nothing + tuple(e.plain for e in public),
        },
    )


def _unpacked(task: Task, texts: Texts, perturbed: Sequence[Question]) -> tuple[list[Explained], list[Explained]]:
    """(the client's rows, public questions), as the server sent them.

    Raises: RefusedInput, unless there is one rationale a row.
    """
    kinds = texts.columns[KIND]
    if kinds[: len(perturbed)] != (_OF_ROWS,) * len(perturbed) or kinds.count(_OF_ROWS) != len(perturbed):
        raise RefusedInput(
            f"fedcot: the server must send one rationale for each of {len(perturbed)} questions, got "
            f"{kinds.count(_OF_ROWS)}; run the server's step again"
        )
    rows = [Explained(question, question, text) for question, text in zip(perturbed, texts.text, strict=False)]
    public = [
        Explained(
            task.joined(json.loads(texts.columns[QUESTION][i])),
            task.joined(json.loads(texts.columns[PERTURBED][i])),
            texts.text[i],
            texts.columns[PLAIN][i],
        )
        for i in range(len(perturbed), len(texts))
    ]
    return rows, public

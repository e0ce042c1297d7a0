"""POST as a protocol: distil at the provider, tune at the client, move at the provider, judge at the client."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from privkt.config import DataConfig
from privkt.contracts import (
    Backend,
    ClientId,
    ClientSite,
    MethodConfig,
    NoProgress,
    Outcome,
    Plan,
    Prediction,
    PublicFacts,
    ServerSite,
    SoftPrompt,
    Texts,
    TransferMethod,
    client_step,
    public_digest,
    server_step,
)
from privkt.privacy import Budget, RefusedInput, Release
from privkt_post import counting, planning
from privkt_post.arms import Arm
from privkt_post.config import POSTConfig
from privkt_post.tasks import make_task

SHA256, LARGE_SHA256, LARGE_WIDTH = "sha256", "large_sha256", "large_width"
_STUDENT, _PROMPT, _COUNTS = "student", "prompt", "counts"


class POST(TransferMethod):
    """Private transfer of soft prompts from a small model to the large one it stands for.

    Guarantee: the prompt's tuning, and noisy counts if settings ask for them, are the only accesses to private rows
        that leave anything behind for others, and they are charged; the transfer sees released and public things alone.
    References: Wang et al. 2025, arXiv 2506.16196.
    """

    name: ClassVar[str] = "post"
    Config: ClassVar[type[MethodConfig]] = POSTConfig
    client_roles: ClassVar[tuple[str, ...]] = ("local_target",)
    server_roles: ClassVar[tuple[str, ...]] = ("target", "student")
    optional_roles: ClassVar[tuple[str, ...]] = ("student", "local_target")
    opened_roles: ClassVar[tuple[str, ...]] = ("target", "student")
    crossing_columns: ClassVar[tuple[str, ...]] = (SHA256, LARGE_SHA256, LARGE_WIDTH, counting.VALUE)
    read_by: ClassVar[Mapping[str, str]] = dict.fromkeys(("inference", "membership", "baselines"), "evaluate")
    config: POSTConfig

    @server_step(once=True)
    def distil(self, site: ServerSite) -> Mapping[ClientId, Texts]:
        """Distilling the large model into a small one"""
        from privkt_post.networks import width_of
        from privkt_post.serving import Mover, student_of
        from privkt_post.store import digest_of

        card = student_of(site, self.config)
        for task in {make_task(self.config.task, facts.labels) for facts in site.clients.values()}:
            Mover(site, self.config, task, card).check()
        site.state.save_json(_STUDENT, card)
        large = site.model("target").weights_folder()
        about = {SHA256: card["sha256"], LARGE_SHA256: digest_of(large), LARGE_WIDTH: str(width_of(large))}
        told = Texts((card["name"],), None, {column: (value,) for column, value in about.items()})
        return dict.fromkeys(site.clients, told)

    @client_step(once=True)
    def tune(self, site: ClientSite, student: Texts) -> Release[SoftPrompt]:
        """Tuning a prompt on the small model under differential privacy"""
        if _PROMPT in site.state:  # tuned before a crash: the same prompt crosses, and nothing is paid twice
            return cast("Release[SoftPrompt]", site.state.load_release(_PROMPT))
        from privkt_post.clients import need_usable_prompt, tune_prompt

        self._possible_arms(site)
        told = {"name": student.text[0]} | {column: values[0] for column, values in student.columns.items()}
        need_usable_prompt(site, self.config, told, int(told.pop(LARGE_WIDTH)))
        site.state.save_json(_STUDENT, told)
        begun = time.monotonic()
        release = tune_prompt(site, self.config, site.state.load_json(_STUDENT))
        site.state.save_json("seconds", {"tune": round(time.monotonic() - begun, 1)})
        site.state.save_release(_PROMPT, release)
        return release

    @server_step(once=True)
    def keep(self, site: ServerSite, received: Mapping[ClientId, SoftPrompt]) -> None:
        """Keeping the prompts that came"""
        for client, prompt in received.items():
            site.state.save(_kept(client), prompt)

    @client_step(once=True)
    def weigh(self, site: ClientSite) -> Release[Texts]:
        """Counting with noise what the transfer is told beside the prompt"""
        if _COUNTS in site.state:
            return cast("Release[Texts]", site.state.load_release(_COUNTS))
        prompt = site.state.load_release(_PROMPT)
        if not self.config.counts:
            # Nothing is counted: an empty table stands for it, under the charge that is paid already.
            return cast("Release[Texts]", prompt.map(_nothing))
        from privkt_post.clients import count

        release = count(site, self.config, site.state.load_json(_STUDENT), prompt)
        site.state.save_release(_COUNTS, release)
        return release

    @server_step
    def transfer(self, site: ServerSite, received: Mapping[ClientId, Texts]) -> Mapping[ClientId, SoftPrompt]:
        """Moving each prompt to the large model with public texts"""
        from privkt_post.serving import Mover

        student = site.state.load_json(_STUDENT)
        answers: dict[ClientId, SoftPrompt] = {}
        reports: dict[ClientId, Any] = {}
        movers: dict[Any, Mover] = {}  # clients of one task share the loaded models
        for client in sorted(received):
            task = make_task(self.config.task, site.clients[client].labels)
            mover = movers[task] = movers.get(task) or Mover(site, self.config, task, student)
            moved, reports[client] = mover.move(
                site.state.load(_kept(client)),
                counting.counts_in(received[client]),
                site.clients[client].size,
                site.folder / public_digest(client)[:12],
            )
            if moved is not None:
                answers[client] = moved
        site.state.save_json("report", {"student": student, "transfers": reports})
        return answers

    @client_step
    def evaluate(self, site: ClientSite, moved: SoftPrompt | None) -> Outcome:
        """Labelling held-out texts with every prompt"""
        from privkt_post.results import Arms

        arms = self._possible_arms(site)
        counts = site.state.load_release(_COUNTS).guarantee if self.config.counts else None
        student, prompt = site.state.load_json(_STUDENT), site.state.load_release(_PROMPT)
        return Arms(site, self.config, student, prompt, counts, moved).judge(arms)

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """The prompt's training, the counts, what crosses."""
        make_task(self.config.task, facts.labels)
        answer = self.config.task.answer
        if answer is not None:
            facts.need_column("post.task.answer", answer)
        if facts.roles is not None:
            self._need_large("local_target" in facts.roles, scores=facts.held_out_columns is not None)
            if "student" not in facts.roles and self.config.distillation.corpus is None:
                raise RefusedInput(
                    "post.distillation.corpus: must name public texts to distil the small model with, got none; add "
                    "it, or name a small model as the role `student`"
                )
        return planning.make_plan(self.config, facts, budget)

    def public_data(self) -> Sequence[DataConfig]:
        """The corpus of the distillation, and the candidates for the transfer."""
        corpus = self.config.distillation.corpus
        return (*self.config.transfer.public, *(() if corpus is None else (corpus,)))

    def comparison(self) -> POSTConfig:
        """Every arm of the method's page that the settings allow."""
        without = {Arm.POST} if self.config.can_query else {Arm.POST, Arm.QUERIES}
        every = tuple(arm for arm in Arm if arm not in without)
        return self.config.model_copy(update={"baselines": every, "missing_models": "skip"})

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """The most probable label of each text by the large model with the transferred prompt, in this process.

        Raises: RefusedInput, without the role `local_target`, or for a task that writes answers.
        """
        from privkt_post.results import own_class_probabilities

        if self.config.task.kind == "generation":
            raise RefusedInput("post: predict labels texts, and this task writes answers; it has no labels")
        if not isinstance(outcome.model, SoftPrompt):
            raise TypeError("post: the outcome has no prompt; run the method to its end first")
        if "local_target" not in models:
            raise RefusedInput(
                "post: predict needs the role `local_target`, the large model in this process, and the config has "
                "none; add it"
            )
        if not texts:
            return []
        task = make_task(self.config.task, labels)
        found = own_class_probabilities(models["local_target"], outcome, task, self.config, texts, NoProgress())
        return [Prediction(task.labels[int(row.argmax())], float(row.max())) for row in found]

    def _possible_arms(self, site: ClientSite) -> tuple[Arm, ...]:
        """The config's arms; without the large model in this process only the small one's.

        Raises: RefusedInput, for counts that need a large model there is none of, or a remote one.
        """
        local = site.models.get("local_target")
        if local is not None and not local.remote:
            return self.config.arms
        self._need_large(False, scores=site.evaluation is not None)
        return tuple(arm for arm in self.config.arms if arm is Arm.STUDENT)

    def _need_large(self, there: bool, *, scores: bool) -> None:
        """Refuses a run that counts or `scores` answers of the large model without one in the client's process."""
        if there:
            return
        if self.config.weighs:
            raise RefusedInput(
                "post.transfer.alpha: heuristic counts what the large model answers to private texts, which it may see "
                "in this process alone; add the role `local_target`, or give alpha as a number or `public`"
            )
        if self.config.missing_models == "refuse" and scores:
            raise RefusedInput(
                "post: held-out texts are labelled by the large model in the client's own process, and the config has "
                "no role `local_target`; add it, or set missing_models: skip"
            )


def _nothing(prompt: SoftPrompt) -> Texts:
    return Texts(())


def _kept(client: ClientId) -> str:
    return f"prompt-{public_digest(client)[:12]}"

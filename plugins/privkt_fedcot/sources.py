"""Where each arm's rationales come from: asked for once, kept at the client, shared by all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privkt.contracts import ClientSite
from privkt.privacy import RefusedInput
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from privkt_fedcot.decoding import Decoder, Explained
from privkt_fedcot.learning import answer_probabilities
from privkt_fedcot.prompts import rationale_prompt, worked_example
from privkt_fedcot.rationales import explain
from privkt_fedcot.tasks import Question, Task

_ANSWERS = "answers-large-model"


@dataclass(frozen=True)
class Sources:
    """What rationales are made of at one client: its true questions, what came back for the perturbed ones, and public
    pairs for a decoder that is trained."""

    site: ClientSite
    config: FedCoTConfig
    task: Task
    questions: Sequence[Question]
    explained: Sequence[Explained]
    public: Sequence[Explained]

    def gather(self, arms: Sequence[Arm]) -> None:
        """Writes every arm's rationales into the site's state; an arm that is there already is not asked for again.

        Guarantee: nothing leaves the process. Prompts hold private text, and neither they nor a hash of them are kept.
        """
        wanted = [arm for arm in arms if arm.has_rationales and name_of(arm) not in self.site.state]
        progress = self.site.progress.task("writing rationales", len(wanted), "arms")
        for arm in wanted:
            self.site.state.save_json(name_of(arm), self._written(arm))
            progress.advance(1, note=arm.heading)
        if Arm.LARGE in arms and _ANSWERS not in self.site.state:
            self.site.state.save_json(_ANSWERS, self._answers())

    def _written(self, arm: Arm) -> list[str]:
        site, config = self.site, self.config
        if arm is Arm.RAW:
            return explain(
                self.questions,
                self.task,
                site.model("local_llm"),
                config.rationale,
                seed=site.seed,
                journal=None,
                progress=site.progress,
                title="writing rationales for raw questions",
            )
        decoder = Decoder(site.model("slm"), config, self.task, seed=site.seed, progress=site.progress)
        if arm is Arm.SELF_RATIONALE:
            return decoder.explain(self.questions)
        if config.decoder.kind == "trained":
            decoder.train(self.public, site.folder / "decoder")
        rows = zip(self.questions, self.explained, strict=True)
        return decoder.decode([Explained(question, e.perturbed, e.rationale) for question, e in rows])

    def _answers(self) -> list[str]:
        """The large model's own answers to the held-out questions, after one worked example."""
        worked = worked_example(self.task, self.config.rationale.worked)
        asked = held_out(self.site, self.task)

        def build(_: int, question: Question) -> str:
            prompt = str(rationale_prompt(question, self.task, worked, chat=False))
            return prompt.removesuffix("Reason:") + "So the answer is"

        rows = answer_probabilities(self.site.model("local_llm"), self.task, asked, build, self.site.progress)
        return [self.task.labels[int(row.argmax())] for row in rows]


def held_out(site: ClientSite, task: Task) -> tuple[Question, ...]:
    """The questions that arms are scored on. Raises RefusedInput, for labels that the client does not declare."""
    if site.evaluation is None:
        return ()
    rows = site.evaluation()
    if set(rows.label or ()) - set(task.labels):
        raise RefusedInput(
            "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
        )
    questions = task.read(rows)
    task.need_answers(questions, list(rows.label or ()))
    return questions


def answered(site: ClientSite) -> list[str]:
    """The large model's own answers to the held-out questions."""
    return list(site.state.load_json(_ANSWERS))


def stored(site: ClientSite, arm: Arm, size: int) -> list[str]:
    """An arm's rationales, one a row, empty where it has none."""
    found: Any = site.state.load_json(name_of(arm)) if arm.has_rationales else [""] * size
    return list(found)


def name_of(arm: Arm) -> str:
    """Under which an arm's rationales are kept."""
    return f"rationales-{arm.value}"

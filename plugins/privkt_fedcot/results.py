"""What the client keeps in the end: scores of every arm, the final model, and what only it may know."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from privkt.contracts import ClientSite, Outcome, Rows
from privkt.privacy import RefusedInput
from privkt.synthesis.arms import ArmResults
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from privkt_fedcot.decoding import Decoder, Explained
from privkt_fedcot.learning import Kept, TaskModel, answer_probabilities, kept_rationales, scores
from privkt_fedcot.prompts import rationale_prompt, worked_example
from privkt_fedcot.rationales import explain
from privkt_fedcot.tasks import Question, Task

NOT_PRIVATE = "the final small model was trained on the private rows themselves: it is not private"


class Arms:
    """One client's arms: where the rationales of each come from, and how it is trained and scored."""

    def __init__(
        self,
        site: ClientSite,
        config: FedCoTConfig,
        task: Task,
        explained: Sequence[Explained],
        public: Sequence[Explained],
    ) -> None:
        self.site, self.config, self.task = site, config, task
        self.explained, self.public = explained, public
        rows = site.data.load()
        self.questions, self.labels = task.read(rows), list(rows.label or ())
        task.need_answers(self.questions, self.labels)
        self.held = site.evaluation() if site.evaluation else None
        self.held_questions: tuple[Question, ...] = self._held_questions(self.held)
        self.model = TaskModel(site.model("slm"), config.slm, task, site.seed, site.progress)

    def _held_questions(self, rows: Rows | None) -> tuple[Question, ...]:
        if rows is None:
            return ()
        if set(rows.label or ()) - set(self.task.labels):
            raise RefusedInput(
                "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
            )
        questions = self.task.read(rows)
        self.task.need_answers(questions, list(rows.label or ()))
        return questions

    def learn(self, possible: Sequence[Arm]) -> Outcome:
        """Trains and scores the same small model, from the same seed, with every arm's rationales.

        Edge cases: without evaluation rows nothing is scored and only FedCoT's own arm is trained; an arm that a
            resumed step has finished is not trained again.
        """
        site, done = self.site, ArmResults(self.site.folder)
        arms = tuple(possible) if self.held is not None else (Arm.FEDCOT,)
        progress = site.progress.task("training the small model", len(arms), "arms")
        for arm in arms:
            if arm.value not in done:
                done.put(arm.value, self._large() if arm is Arm.LARGE else self._trained(arm))
            progress.advance(1, note=arm.heading)
        scored = {arm.heading: done[arm.value]["scores"] for arm in arms} if self.held is not None else {}
        return Outcome(
            scores=scored,
            notes={
                "statement": NOT_PRIVATE,
                "not_measured": [arm.heading for arm in self.config.arms if arm not in arms],
                "main": Arm.FEDCOT.heading,
                "arms": {
                    arm.heading: {"protection": arm.protection}
                    | {k: v for k, v in done[arm.value].items() if k != "scores"}
                    for arm in arms
                },
            },
            model=site.state.load("model"),
        )

    def _trained(self, arm: Arm) -> dict[str, Any]:
        folder = self.site.folder / arm.value
        kept = self._kept(arm)
        trained = self.model.train(self.model.examples(self.questions, self.labels, kept.rationales), folder / "model")
        if arm is Arm.FEDCOT:
            self.site.state.save("model", trained)
        result: dict[str, Any] = {"rows": len(self.questions)}
        if arm is not Arm.LABEL_ONLY:
            result["rationales"] = {"written": kept.written, "agreeing": kept.agreeing, "used": kept.used}
        if self.held is not None:
            result["scores"] = self._scores(self.model.predict(trained, self.held_questions))
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _kept(self, arm: Arm) -> Kept:
        """The rationales of an arm, as training uses them."""
        site, config, task = self.site, self.config, self.task
        if arm is Arm.LABEL_ONLY:
            return Kept(("",) * len(self.questions), 0, 0)
        decoder = Decoder(site.model("slm"), config, task, seed=site.seed, progress=site.progress)
        if arm is Arm.SELF_RATIONALE:
            found = decoder.explain(self.questions)
        elif arm is Arm.RAW:
            found = explain(
                self.questions,
                task,
                site.model("local_llm"),
                config.rationale,
                seed=site.seed,
                journal=None,  # prompts that hold private text, and answers to them, are kept nowhere
                progress=site.progress,
                title="writing rationales for raw questions",
            )
        else:
            if config.decoder.kind == "trained":
                decoder.train(self.public, site.folder / "decoder")
            found = decoder.decode(
                [
                    Explained(question, e.perturbed, e.rationale)
                    for question, e in zip(self.questions, self.explained, strict=True)
                ]
            )
        return kept_rationales(task, self.questions, self.labels, found, config.filter)

    def _large(self) -> dict[str, Any]:
        """The large model's own answers to the held-out questions, after one worked example."""
        worked = worked_example(self.task, self.config.rationale.worked)
        prompts = [
            str(rationale_prompt(q, self.task, worked, chat=False)).removesuffix("Reason:") + "So the answer is"
            for q in self.held_questions
        ]
        rows = answer_probabilities(self.site.model("local_llm"), self.task, self.held_questions, prompts)
        return {"scores": self._scores([self.task.labels[int(row.argmax())] for row in rows])}

    def _scores(self, found: Sequence[str]) -> Mapping[str, float]:
        assert self.held is not None
        every = scores(found, list(self.held.label or ()), self.task.labels)
        return {"accuracy": every["accuracy"]} if self.task.has_choices else every

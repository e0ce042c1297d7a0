"""What the client keeps in the end: scores of every arm, the final model, and what only it may know."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from privkt.contracts import ClientSite, Outcome
from privkt.synthesis.arms import ArmResults
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig
from privkt_fedcot.learning import Kept, TaskModel, kept_rationales, scores
from privkt_fedcot.sources import answered, held_out, stored
from privkt_fedcot.tasks import Task

NOT_PRIVATE = "the final small model was trained on the private rows themselves: it is not private"


class Arms:
    """One client's arms: how each is trained and scored. Their rationales were gathered before, for all seeds."""

    def __init__(self, site: ClientSite, config: FedCoTConfig, task: Task) -> None:
        self.site, self.config, self.task = site, config, task
        rows = site.data.load()
        self.questions, self.labels = task.read(rows), list(rows.label or ())
        task.need_answers(self.questions, self.labels)
        self.held = site.evaluation() if site.evaluation else None
        self.held_questions = held_out(site, task)
        self.model = TaskModel(site.model("slm"), config.slm, task, site.seed, site.progress)

    def learn(self, possible: Sequence[Arm]) -> Outcome:
        """Trains and scores the same small model, from the same seed, with every arm's rationales.

        Edge cases: without evaluation rows nothing is scored and only FedCoT's own arm is trained; an arm that a
            resumed step has finished is not trained again.
        """
        site, done = self.site, ArmResults(self.site.folder)
        arms = tuple(possible)
        progress = site.progress.task("training the small model", len(arms), "arms")
        for arm in arms:
            if arm.value not in done:
                done.put(arm.value, self._answered() if arm is Arm.LARGE else self._trained(arm))
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
        count = len(self.questions)
        result: dict[str, Any] = {"rows": count, "learnt_from": f"{count} answers"}
        if arm is not Arm.LABEL_ONLY:
            result["learnt_from"] += f", {kept.used} of {kept.written} rationales"
            result["rationales"] = {"written": kept.written, "agreeing": kept.agreeing, "used": kept.used}
        if self.held is not None:
            result["scores"] = self._scores(self.model.predict(trained, self.held_questions))
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _kept(self, arm: Arm) -> Kept:
        """The rationales of an arm, as training uses them."""
        found = stored(self.site, arm, len(self.questions))
        return kept_rationales(self.task, self.questions, self.labels, found, self.config.filter)

    def _answered(self) -> dict[str, Any]:
        return {"scores": self._scores(answered(self.site))}

    def _scores(self, found: Sequence[str]) -> Mapping[str, float]:
        assert self.held is not None
        every = scores(found, list(self.held.label or ()), self.task.labels)
        return {"accuracy": every["accuracy"]} if self.task.has_choices else every

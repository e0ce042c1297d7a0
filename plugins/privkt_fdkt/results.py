"""What the client keeps in the end: scores of every arm, the final model, and what only it may know."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from privkt.contracts import ClientSite, LabelledText, Outcome
from privkt.privacy import RefusedInput
from privkt.synthesis.arms import ArmResults
from privkt.synthesis.overlap import overlap_report
from privkt.synthesis.task_model import TaskModel, TrainingSet, rows_of, scores
from privkt.synthesis.templates import Template
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig

NOT_PRIVATE = "the final small model was trained on the private rows themselves: it is not private"


def learn_arms(
    site: ClientSite,
    config: FDKTConfig,
    possible: Sequence[Arm],
    template: Template,
    foreign: Mapping[Arm, Sequence[LabelledText]],
) -> Outcome:
    """Trains and scores the same small model, from the same seed, on every arm's training set.

    Edge cases: without evaluation rows nothing is scored and only FDKT's own arm is trained; an arm that a resumed step
        has finished is not trained again.
    """
    private = rows_of(site.data.load())
    evaluation = site.evaluation() if site.evaluation else None
    wanted = list(evaluation.label or ()) if evaluation else []
    if evaluation and set(wanted) - set(template.labels):
        raise RefusedInput(
            "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
        )
    task = TaskModel(site.model("slm"), config.slm, template.names, site.seed, site.progress)
    done = ArmResults(site.folder)
    arms = possible if evaluation else (Arm.FDKT,)
    progress = site.progress.task("training the small model", len(arms), "arms")
    for arm in arms:
        if arm.value not in done:
            folder = site.folder / arm.value.replace("+", "-")
            own = () if arm is Arm.SYNTHETIC else private
            learned = task.learn(TrainingSet(own, tuple(foreign.get(arm, ()))), folder)
            found = task.predict(learned.model, evaluation.text) if evaluation else []
            if arm is Arm.FDKT:
                site.state.save("model", learned.model)
            result: dict[str, Any] = {
                "rows": {"private": len(own), "foreign": len(foreign.get(arm, ()))},
                "weight": learned.weight,
                "weights_tried": dict(learned.tried),
            }
            if evaluation:
                result["scores"] = scores(found, wanted, template.labels)
            done.put(arm.value, result)
            shutil.rmtree(folder, ignore_errors=True)
        progress.advance(1, note=arm.heading)
    texts = [row.text for row in private]
    made = {Arm.SYNTHETIC.value: foreign[Arm.SYNTHETIC], Arm.FDKT.value: foreign.get(Arm.FDKT, ())}
    return Outcome(
        scores={arm.heading: done[arm.value]["scores"] for arm in arms} if evaluation else {},
        notes={
            "statement": NOT_PRIVATE,
            "not_measured": [arm.heading for arm in config.arms if arm not in arms],
            "main": Arm.FDKT.heading,
            "arms": {
                arm.heading: {"protection": arm.protection}
                | {k: v for k, v in done[arm.value].items() if k != "scores"}
                for arm in arms
            },
            "drawing": site.state.load_json("drawing"),
            "overlap": {
                name: overlap_report([row.text for row in rows], texts, config.canaries) for name, rows in made.items()
            },
        },
        model=site.state.load("model"),
    )

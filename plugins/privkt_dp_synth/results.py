"""What synthetic texts are good for: a small model learns from them and is scored beside one of the private rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from privkt.contracts import ClientSite, LabelledText, Outcome
from privkt.privacy import RefusedInput
from privkt.synthesis.arms import ArmResults
from privkt.synthesis.overlap import overlap_report
from privkt.synthesis.task_model import TaskModel, TrainingSet, rows_of, scores
from privkt.synthesis.templates import Template
from privkt_dp_synth.config import DPSynthConfig

SYNTHETIC, PRIVATE = "DP synthetic alone", "private data alone (not private)"


def evaluate(site: ClientSite, config: DPSynthConfig, template: Template, synthetic: Sequence[LabelledText]) -> Outcome:
    """The small model that learnt from synthetic texts alone, and scores of every arm.

    Edge cases: without the role `slm` no model is trained; without evaluation rows nothing is scored. A model that was
        trained on private rows is scored and thrown away.
    """
    private = rows_of(site.data.load())
    made, own = [row.text for row in synthetic], [row.text for row in private]
    notes: dict[str, Any] = {
        "statement": "texts, and the small model that learnt from them alone, have the release's guarantee",
        "main": SYNTHETIC,
        "drawing": site.state.load_json("drawing"),
        "overlap": {SYNTHETIC: overlap_report(made, own, config.canaries)},
    }
    if "slm" not in site.models:
        return Outcome(notes=notes)
    held = site.evaluation() if site.evaluation else None
    wanted = list(held.label or ()) if held else []
    if held and set(wanted) - set(template.labels):
        raise RefusedInput(
            "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
        )
    task = TaskModel(site.model("slm"), config.slm, template.names, site.seed, site.progress)
    sets = {SYNTHETIC: TrainingSet((), tuple(synthetic))}
    if held and "private" in config.baselines:
        sets[PRIVATE] = TrainingSet(private)
    done = ArmResults(site.folder)
    progress = site.progress.task("training the small model", len(sets), "arms")
    for arm, rows in sets.items():
        if arm not in done:
            folder = site.folder / ("synthetic" if arm == SYNTHETIC else "private")
            learned = task.learn(rows, folder)
            if arm == SYNTHETIC:
                site.state.save("model", learned.model)
            found = task.predict(learned.model, held.text) if held else []
            done.put(arm, scores(found, wanted, template.labels) if held else {})
            shutil.rmtree(folder, ignore_errors=True)
        progress.advance(1, note=arm)
    protection = {SYNTHETIC: "release", PRIVATE: "nothing crossed"}
    notes["arms"] = {arm: {"protection": protection[arm]} for arm in sets}
    return Outcome(scores={arm: done[arm] for arm in sets} if held else {}, notes=notes, model=site.state.load("model"))

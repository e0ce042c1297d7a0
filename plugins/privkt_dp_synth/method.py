"""DP generation with control codes as a protocol: tune and draw at the client, publish, and see what it is good for."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from privkt.contracts import (
    Adapter,
    Backend,
    BackendError,
    ClientId,
    ClientSite,
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
    server_step,
)
from privkt.privacy import Budget, RefusedInput, Release
from privkt.privacy.guarantee import HALF_PRECISION
from privkt.synthesis.finetune import tune_generator
from privkt.synthesis.planning import plan_training, privacy_of, training_warnings
from privkt.synthesis.sampling import DRAWING, draw_labelled
from privkt.synthesis.templates import Template, make_template
from privkt_dp_synth.config import DPSynthConfig

PURPOSE = "dp_synth: fine-tune the generator"
_BYTES_A_TOKEN = 5


class DPSynth(TransferMethod):
    """DP generation with control codes.

    Guarantee: the generator's training is the only access to private rows that leaves anything for others, and it
        is charged; the texts are post-processing of it.
    References: Yue et al. 2023, Synthetic Text Generation with Differential Privacy, ACL, section 3.
    """

    name: ClassVar[str] = "dp_synth"
    Config: ClassVar[type[MethodConfig]] = DPSynthConfig
    client_roles: ClassVar[tuple[str, ...]] = ("generator", "slm")
    optional_roles: ClassVar[tuple[str, ...]] = ("slm",)
    read_by: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(DRAWING, "synthesize"), "output": "publish", "slm": "evaluate",
    }  # fmt: skip
    config: DPSynthConfig

    @client_step(once=True)
    def tune(self, site: ClientSite) -> None:
        """Fine-tuning the generator under differential privacy"""
        if "generator" in site.state:
            return
        release = tune_generator(
            site.model("generator"),
            site.data.load(),
            self._template(site.id, site.data.labels),
            self.config.generator,
            folder=site.folder / "generator",
            privacy=privacy_of(site, PURPOSE),
            seed=site.seed,
            progress=site.progress,
        )
        site.state.save_release("generator", release)

    @client_step
    def synthesize(self, site: ClientSite) -> Release[Texts]:
        """Drawing synthetic texts from the private generator"""
        drawn = site.state.load_release("generator").map(
            draw_labelled,
            public={
                "backend": site.model("generator"),
                "template": self._template(site.id, site.data.labels),
                "rule": self.config.sampling_rule(site.seed),
                "progress": site.progress,
            },
        )
        site.state.save_json("drawing", drawn.payload.to_json())
        if not len(drawn.payload.texts):
            raise BackendError(
                "dp_synth: the generator must write at least one valid text, got none; lower min_words, or raise "
                "max_tokens or attempts, and give the corrected config with --resume, unless another client or seed "
                "has drawn already (drawing again costs no budget)"
            )
        return drawn.map(lambda sampled: sampled.texts)

    @server_step
    def publish(self, site: ServerSite, received: Mapping[ClientId, Texts]) -> Mapping[ClientId, Texts]:
        """Writing what crossed to a file"""
        report: dict[ClientId, dict[str, Any]] = {client: {"texts": len(texts)} for client, texts in received.items()}
        if self.config.output is not None:
            begun = site.state.load_json("output") if "output" in site.state else {}
            if begun.get("asked") != self.config.output:  # else a resumed step writes where it began to
                begun = {
                    "asked": self.config.output, "place": str(free_place(Path(self.config.output), site.seed)),
                }  # fmt: skip
                site.state.save_json("output", begun)
            place = Path(begun["place"])
            write_lines(place, received)
            report = {client: {**counts, "written_to": str(place)} for client, counts in report.items()}
        site.state.save_json("report", report)
        return received

    @client_step
    def evaluate(self, site: ClientSite, published: Texts) -> Outcome:
        """Training a small model on the synthetic texts"""
        from privkt_dp_synth.results import evaluate

        return evaluate(site, self.config, self._template(site.id, site.data.labels), tuple(published))

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """The generator's training and what crosses."""
        template = self._template(facts.name, facts.labels)
        if len(template.labels) < 2:
            raise RefusedInput(
                "data.labels must list at least two labels, got one: there is nothing to tell apart; declare the others"
            )
        training = plan_training(self.config.generator, facts, budget, purpose=PURPOSE, where="dp_synth.generator")
        drawn = self.config.samples_per_label * len(template.labels)
        return Plan(
            trainings=(training,),
            bytes_out=drawn * self.config.max_tokens * _BYTES_A_TOKEN,
            crosses=(
                f"client to server: at most {drawn} synthetic texts of at most {self.config.max_tokens} tokens with "
                f"their labels, {self.config.samples_per_label} a label",
            ),
            not_covered=(
                f"if the generator computes in half precision, its guarantee is conditional on: {HALF_PRECISION}",
                "settings chosen by looking at results on the private data are outside the epsilon",
                "labels, domain, control code, the declared size and the number of texts are public",
            ),
            warnings=tuple(training_warnings(training, "generator")),
        )

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """The most probable label of each text by the small model that learnt from synthetic texts alone."""
        from privkt.synthesis.task_model import TaskModel

        if not isinstance(outcome.model, Adapter | Model) or "slm" not in models:
            raise RefusedInput("dp_synth: predict needs the small model; give the role `slm` and run the method again")
        template = make_template(self.config.template, labels)
        task = TaskModel(models["slm"], self.config.slm, template.names, seed=0)
        if not texts:
            return []
        found = task.probabilities(outcome.model, texts)
        return [Prediction(task.labels[int(row.argmax())], float(row.max())) for row in found]

    def _template(self, client: ClientId, labels: Sequence[str] | None) -> Template:
        return make_template(self.config.template, labels, domain=self.config.domains.get(client))


def free_place(path: Path, seed: int) -> Path:
    """Where a seed's texts go, absolute: the seed is in the name but for 0, and a number where a file lies there."""
    place = Path(os.path.abspath(path if seed == 0 else path.with_name(f"{path.stem}-seed{seed}{path.suffix}")))
    others = (place.with_name(f"{place.stem}-{number}{place.suffix}") for number in itertools.count(2))
    return next(free for free in itertools.chain([place], others) if not os.path.lexists(free))


def write_lines(path: Path, received: Mapping[ClientId, Texts]) -> None:
    """One JSON object a text: text, label, and the client it came from.

    Guarantee: the file appears whole.
    """
    lines = [
        json.dumps({"text": row.text, "label": row.label, "client": client}, ensure_ascii=False)
        for client, texts in sorted(received.items())
        for row in texts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)

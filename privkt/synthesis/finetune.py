"""A text generator fine-tuned on labelled private records under differential privacy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from privkt.contracts import Adapter, Backend, Example, Model, Privacy, Progress, Recipe, Rows
from privkt.privacy import RefusedInput, Release
from privkt.synthesis.templates import Template

Schedule = Literal["constant", "linear", "cosine"]


class TrainingConfig(BaseModel):
    """How a model is trained on private records. `lora` None takes the model's own `lora` option."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=20.0, gt=0)
    batch_size: int = Field(default=256, ge=1)
    microbatch_size: int | str = "auto"
    learning_rate: float = Field(default=1e-3, gt=0)
    max_length: int = Field(default=128, ge=8)
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.0, ge=0, lt=1)
    schedule: Schedule = "constant"
    lora: dict[str, Any] | None = None

    def recipe(self, model_options: Mapping[str, Any], seed: int) -> Recipe:
        """The recipe for a backend whose options are given."""
        lora = self.lora if self.lora is not None else model_options.get("lora")
        return Recipe(
            task="causal-lm",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            max_length=self.max_length,
            microbatch_size=self.microbatch_size,
            max_grad_norm=self.max_grad_norm,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            schedule=self.schedule,
            lora=lora,
            seed=seed,
        )


class FinetuneConfig(TrainingConfig):
    """How the generator is trained. Large batches, many epochs, few trainable parameters (Yue et al., ACL 2023).

    `train_on_code` puts the control code into the loss too; the code is public, so that buys nothing but length.
    `lora` None takes the generator's own `lora` option; `trainable` counts only without LoRA.
    """

    train_on_code: bool = False
    trainable: str = "all"

    def recipe(self, model_options: Mapping[str, Any], seed: int) -> Recipe:
        """The recipe for a backend whose options are given."""
        made = super().recipe(model_options, seed)
        return replace(made, train_on_prompt=self.train_on_code, trainable=self.trainable)


def generator_examples(rows: Rows, template: Template) -> list[Example]:
    """One example a record: its control code, then its text.

    Guarantee: one record changes one example and nothing else (no packing, no splitting): DP-SGD's unit is the record.
    Raises: RefusedInput, when rows have no labels or an undeclared one (its row number is named, not its content).
    """
    if rows.label is None:
        raise RefusedInput(
            "data.label must name the column of labels, got nothing: a control code is made of a label; add `label:`"
        )
    known = set(template.names)
    for number, label in enumerate(rows.label, start=1):
        if label not in known:
            raise RefusedInput(
                f"data: the label of row {number} must be one of the {len(known)} declared ones, got another; "
                "correct `labels:` or the row"
            )
    return [template.example(text, label) for text, label in zip(rows.text, rows.label, strict=True)]


def tune_generator(
    backend: Backend,
    rows: Rows,
    template: Template,
    config: FinetuneConfig,
    *,
    folder: Path,
    privacy: Privacy | None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Release[Adapter] | Release[Model] | Adapter | Model:
    """The generator's weights after next-token training on code and text.

    Guarantee: with `privacy`, a Release charged before the first step. Without, nothing is promised.
    """
    return backend.train(
        generator_examples(rows, template),
        config.recipe(backend.options, seed),
        folder=folder,
        privacy=privacy,
        progress=progress,
    )

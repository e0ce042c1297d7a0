"""A small model that learns to label texts from private and foreign ones; every arm with the same model and seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from privkt.contracts import Adapter, Backend, Example, LabelledText, Model, Progress, Recipe, Rows

if TYPE_CHECKING:
    import numpy as np


class SlmConfig(BaseModel):
    """How the task model is trained on private and augmented texts.

    `trainable`: "all", "head" or "last:K"; ignored with `lora`. `weights`: candidates for the weight of a foreign
    text's loss (a private one weighs 1); the best on `validation`, a share of the private rows, is taken. One
    candidate needs no validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=10.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=128, ge=8)
    trainable: str = "head"
    lora: dict[str, Any] | None = None
    weights: tuple[float, ...] = (0.3, 1.0)
    validation: float = Field(default=0.2, gt=0, lt=1)

    @field_validator("weights")
    @classmethod
    def _in_range(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not weights or not all(0 < w <= 1 for w in weights):
            raise ValueError("must list at least one weight in (0, 1]")
        return tuple(sorted(set(weights)))

    def recipe(self, classes: tuple[str, ...], seed: int) -> Recipe:
        """The recipe of one training."""
        return Recipe(
            task="classification",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_length=self.max_length,
            labels=classes,
            lora=self.lora,
            trainable=self.trainable,
            seed=seed,
        )


@dataclass(frozen=True)
class TrainingSet:
    """What one arm trains on: private rows, which weigh 1, and foreign ones, which weigh w."""

    private: tuple[LabelledText, ...]
    foreign: tuple[LabelledText, ...] = ()


@dataclass(frozen=True)
class Learned:
    """One trained arm: its weights, the weight of foreign texts, and the scores that chose it."""

    model: Model | Adapter
    weight: float
    tried: Mapping[str, float]


class TaskModel:
    """A backend that learns to label texts. Its classes are the labels' names, which say something to a language model.

    Whether a head or the likelihood of the names decides is an option of the model (`classifier` of `transformers`).
    """

    def __init__(
        self,
        backend: Backend,
        config: SlmConfig,
        names: Mapping[str, str],
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.backend, self.config, self.names, self.seed = backend, config, dict(names), seed
        self.progress = progress
        self.labels = tuple(names)
        self.classes = tuple(names.values())

    def train(self, data: TrainingSet, weight: float, folder: Path) -> Model | Adapter:
        """Weights after training on L = mean of w_source * cross-entropy.

        Guarantee: none; private rows go in as they are.
        """
        weighted = [(row, 1.0) for row in data.private]
        weighted += [(row, weight if data.private else 1.0) for row in data.foreign]
        trained = self.backend.train(
            [Example(row.text, self.names[str(row.label)], w) for row, w in weighted],
            self.config.recipe(self.classes, self.seed),
            folder=folder,
            progress=self.progress,
        )
        if not isinstance(trained, Model | Adapter):
            raise TypeError(
                f"backend {self.backend.name!r}: a training without privacy must give a Model or an Adapter"
            )
        return trained

    def probabilities(self, weights: Model | Adapter, texts: Sequence[str]) -> np.ndarray:
        """[n, labels] float64, rows sum to 1."""
        return self.backend.with_weights(weights).classify(list(texts), self.classes)

    def predict(self, weights: Model | Adapter, texts: Sequence[str]) -> list[str]:
        """The most probable label of every text."""
        return [self.labels[i] for i in self.probabilities(weights, texts).argmax(axis=1)] if texts else []

    def learn(self, data: TrainingSet, folder: Path) -> Learned:
        """Chooses the weight of foreign texts on a part of the private rows, then trains on all of them."""
        weight, tried = self._choose_weight(data, folder)
        return Learned(self.train(data, weight, folder / "model"), weight, tried)

    def _choose_weight(self, data: TrainingSet, folder: Path) -> tuple[float, dict[str, float]]:
        weights = self.config.weights
        if not data.foreign or not data.private or len(weights) == 1:
            return (weights[-1] if data.foreign and data.private else 1.0), {}
        train, held = split(data.private, self.config.validation, self.seed)
        tried: dict[str, float] = {}
        for weight in weights:
            place = folder / f"weight-{weight:g}"
            model = self.train(TrainingSet(train, data.foreign), weight, place)
            found = self.predict(model, [row.text for row in held])
            tried[f"{weight:g}"] = scores(found, [str(row.label) for row in held], self.labels)["macro_f1"]
            shutil.rmtree(place, ignore_errors=True)
        # The smaller of equally good weights: it trusts foreign texts less.
        best = max(weights, key=lambda w: (tried[f"{w:g}"], -w))
        return best, tried


def split(
    rows: Sequence[LabelledText], share: float, seed: int
) -> tuple[tuple[LabelledText, ...], tuple[LabelledText, ...]]:
    """(training rows, held-out rows), the same share of each label, at least one of a label that has two or more."""
    generator = random.Random(seed)
    by_label: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_label.setdefault(str(row.label), []).append(number)
    held: set[int] = set()
    for numbers in by_label.values():
        count = max(1, round(share * len(numbers))) if len(numbers) > 1 else 0
        held.update(generator.sample(numbers, count))
    train = tuple(row for number, row in enumerate(rows) if number not in held)
    return train, tuple(rows[number] for number in sorted(held))


def sample_of_each(rows: Sequence[LabelledText], count: int, seed: int) -> tuple[LabelledText, ...]:
    """At most `count` rows of each label, in their old order: private rows in the number that synthetic ones have."""
    generator = random.Random(seed)
    by_label: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_label.setdefault(str(row.label), []).append(number)
    kept = {n for numbers in by_label.values() for n in generator.sample(numbers, min(count, len(numbers)))}
    return tuple(row for number, row in enumerate(rows) if number in kept)


def scores(found: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy and macro F1 over the declared labels; zeros when there is nothing to score."""
    if not wanted:
        return {"accuracy": 0.0, "macro_f1": 0.0}
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, labels=list(labels), average="macro", zero_division=0)),
    }


def rows_of(rows: Rows) -> tuple[LabelledText, ...]:
    """Rows of a data set as labelled texts."""
    return tuple(LabelledText(text, label) for text, label in zip(rows.text, rows.label or (), strict=True))

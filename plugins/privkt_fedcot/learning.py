"""The task model: one small model taught to answer and, in training only, to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.contracts import Adapter, Backend, Example, Model, Progress
from privkt_fedcot.config import SlmConfig
from privkt_fedcot.fitting import fitted
from privkt_fedcot.prompts import answer_prompt, explain_prompt
from privkt_fedcot.tasks import Question, Task, said_label

if TYPE_CHECKING:
    import numpy as np

_PORTION = 64  # questions between two signs of life


@dataclass(frozen=True)
class Kept:
    """Rationales that training uses, an empty one where none is; and what became of the others."""

    rationales: tuple[str, ...]
    written: int
    agreeing: int

    @property
    def used(self) -> int:
        """How many are used."""
        return sum(map(bool, self.rationales))


def kept_rationales(
    task: Task, questions: Sequence[Question], labels: Sequence[str], rationales: Sequence[str], rule: str
) -> Kept:
    """Rationales that end with the row's own label ("agrees"), or all ("none"); it asks nobody anything."""
    agrees = [said_label(task, q, r) == label for q, r, label in zip(questions, rationales, labels, strict=True)]
    kept = tuple(r if ok or rule == "none" else "" for r, ok in zip(rationales, agrees, strict=True))
    return Kept(kept, sum(map(bool, rationales)), sum(agrees))


class TaskModel:
    """A backend that learns L = (1 - w) L(answer) + w L(rationale), w the rationale weight, and answers by likelihood.

    References: Hsieh et al. 2023, Distilling Step-by-Step, whose lambda weights the answer instead.
    """

    def __init__(self, backend: Backend, config: SlmConfig, task: Task, seed: int, progress: Progress) -> None:
        self.backend, self.config, self.task = backend, config, task
        self.seed, self.progress = seed, progress

    def examples(
        self, questions: Sequence[Question], labels: Sequence[str], rationales: Sequence[str]
    ) -> list[Example]:
        """The two tasks of each row; a row without a rationale has the first alone, of the same weight.

        Edge cases: without any rationale every answer weighs 1.
        """
        weight = self.config.rationale_weight if any(rationales) else 0.0
        rows = []
        for question, label, rationale in zip(questions, labels, rationales, strict=True):
            rows.append(
                Example(answer_prompt(question, self.task), f" {self.task.answer(question, label)}", 1 - weight)
            )
            if rationale and weight > 0:
                rows.append(Example(explain_prompt(question, self.task), f" {rationale}", weight))
        return rows

    def train(self, examples: Sequence[Example], folder: Path) -> Model | Adapter:
        """Guarantee: none; private rows go in as they are."""
        recipe = self.config.recipe(self.seed)
        trained = self.backend.train(examples, recipe, folder=folder, progress=self.progress)
        if not isinstance(trained, Model | Adapter):
            raise TypeError(
                f"backend {self.backend.name!r}: a training without privacy must give a Model or an Adapter"
            )
        return trained

    def probabilities(self, weights: Model | Adapter, questions: Sequence[Question]) -> list[np.ndarray]:
        """For each question the probability of each of its answers, in the order of the labels."""
        return answer_probabilities(
            self.backend.with_weights(weights),
            self.task,
            questions,
            lambda _, q: answer_prompt(q, self.task),
            self.progress,
        )

    def predict(self, weights: Model | Adapter, questions: Sequence[Question]) -> list[str]:
        """The most probable label of every question."""
        return [self.task.labels[int(row.argmax())] for row in self.probabilities(weights, questions)]


def answer_probabilities(
    backend: Backend,
    task: Task,
    questions: Sequence[Question],
    build: Callable[[int, Question], str],
    progress: Progress,
) -> list[np.ndarray]:
    """The likelihood of every answer after its question's prompt, made to sum to 1 over the answers."""
    import numpy as np

    answers = [f" {answer}" for question in questions for answer in task.answers(question)]
    longest = max(backend.count_tokens(answers) or [0], default=0)
    prompts = fitted(backend, questions, build, longest)
    told = progress.task("answering questions", len(questions), "questions")
    rows = []
    for start in range(0, len(questions), _PORTION):
        part = slice(start, start + _PORTION)
        choices = [[f" {answer}" for answer in task.answers(question)] for question in questions[part]]
        asked = [(p, answer) for p, listed in zip(prompts[part], choices, strict=True) for answer in listed]
        found = iter(backend.score([p for p, _ in asked], [a for _, a in asked]))
        for listed in choices:
            logs = np.array([next(found).logprob for _ in listed])
            likely = np.exp(logs - logs.max())
            rows.append(likely / likely.sum())
        told.advance(len(choices))
    return rows


def scores(found: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy and, where labels mean the same in every row, macro F1."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, labels=list(labels), average="macro", zero_division=0)),
    }

"""Questions: read from rows, taken apart into the parts that are perturbed, written into prompts, scored."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from privkt.contracts import Rows
from privkt.privacy import RefusedInput
from privkt_fedcot.config import LengthConfig, TaskConfig


@dataclass(frozen=True)
class Question:
    """What a row asks. `choices` is empty where the answer is free or yes and no."""

    text: str
    choices: tuple[str, ...] = ()
    context: str | None = None

    def written(self, labels: Sequence[str]) -> str:
        """As prompts show it: the passage, the question, a line a choice under the public names of the places."""
        lines = [] if self.context is None else [f"Passage: {_line(self.context)}"]
        lines.append(f"Question: {_line(self.text)}")
        lines += [f"{label}. {_line(choice)}" for label, choice in zip(labels, self.choices, strict=False)]
        return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Part:
    """One part of a row that is perturbed by itself. Units: tokens is its public length; name that of its budget."""

    name: str
    tokens: int


class Task:
    """A kind of question with the public list of labels.

    Raises: RefusedInput, for rows that are no questions of the kind; messages name rows by number alone.
    """

    def __init__(self, config: TaskConfig, labels: Sequence[str] | None) -> None:
        if not labels:
            raise RefusedInput(
                "fedcot: data.labels must list the answers (for multiple choice the names of the places, such as A, B, "
                "C), got none; declare them"
            )
        if config.kind == "yes-no" and len(labels) != 2:
            raise RefusedInput(
                f"fedcot.task: yes-no needs exactly two data.labels, got {len(labels)}; declare two, or another kind"
            )
        self.config, self.labels = config, tuple(labels)

    @property
    def has_choices(self) -> bool:
        """Whether every row brings its own answers."""
        return self.config.kind == "multiple-choice"

    def parts(self, tokens: LengthConfig) -> tuple[Part, ...]:
        """What is perturbed of every row, in order: always the same parts, whatever a row holds."""
        found = [] if self.config.context is None else [Part("context", tokens.context)]
        found.append(Part("question", tokens.question))
        if self.has_choices:
            found += [Part("choice", tokens.choice)] * len(self.labels)
        return tuple(found)

    def read(self, rows: Rows) -> tuple[Question, ...]:
        """The rows' questions."""
        contexts = self._column(rows, self.config.context)
        choices = self._column(rows, self.config.choices if self.has_choices else None)
        return tuple(
            Question(text, self._listed(choices[i], i) if choices else (), contexts[i] if contexts else None)
            for i, text in enumerate(rows.text)
        )

    def _column(self, rows: Rows, name: str | None) -> tuple[str, ...]:
        if name is None:
            return ()
        if name not in rows.columns:
            raise RefusedInput(
                f"fedcot.task: the data must have the column {name!r}, which its `columns` does not list; add it"
            )
        return rows.columns[name]

    def _listed(self, cell: str, row: int) -> tuple[str, ...]:
        try:
            found = json.loads(cell)
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(choice, str) and choice.strip() for choice in found):
            raise RefusedInput(
                f"fedcot.task: row {row + 1}: column {self.config.choices!r} must hold a JSON list of texts, none "
                "empty; correct the row"
            )
        if not 2 <= len(found) <= len(self.labels):
            raise RefusedInput(
                f"fedcot.task: row {row + 1} must have 2 to {len(self.labels)} choices, one a declared label; declare "
                "more labels or correct the row"
            )
        return tuple(found)

    def need_answers(self, questions: Sequence[Question], labels: Sequence[str]) -> None:
        """Raises RefusedInput where a label is not declared, or names a choice that its row does not have."""
        for row, (question, label) in enumerate(zip(questions, labels, strict=True)):
            if label not in self.labels:
                raise RefusedInput(
                    f"fedcot.task: row {row + 1}: every label must be among the client's declared ones, got another; "
                    "correct the row"
                )
            if self.has_choices and self.labels.index(label) >= len(question.choices):
                raise RefusedInput(
                    f"fedcot.task: row {row + 1}: the label names a choice that the row does not have; correct the row"
                )

    def split(self, question: Question) -> list[str]:
        """The texts of `parts`, in order; a choice that a row does not have is an empty text."""
        found = [] if self.config.context is None else [question.context or ""]
        found.append(question.text)
        if self.has_choices:
            found += [*question.choices, *[""] * (len(self.labels) - len(question.choices))]
        return found

    def joined(self, texts: Sequence[str]) -> Question:
        """The question whose parts are `texts`: always with all places, also those that came out empty."""
        rest = list(texts)
        context = None if self.config.context is None else rest.pop(0)
        return Question(rest[0], tuple(rest[1:]), context)

    def answers(self, question: Question) -> tuple[str, ...]:
        """What the small model chooses among, in the order of the labels."""
        return question.choices if self.has_choices else self.labels

    def answer(self, question: Question, label: str) -> str:
        """What the small model should say."""
        return self.answers(question)[self.labels.index(label)]

    def named(self, question: Question, label: str) -> str:
        """The answer as a rationale ends with it."""
        return f"{label}. {self.answer(question, label)}" if self.has_choices else label


_SAYS = re.compile(r"answer is[:\s]*", re.IGNORECASE)


def said_label(task: Task, question: Question, rationale: str) -> str | None:
    """The label that a rationale ends with, None where it names none or more than one.

    What follows the last "answer is" counts; without it, the only answer that the text holds at all.
    """
    places = list(_SAYS.finditer(rationale))
    if places:
        rest = rationale[places[-1].end() :]
        if task.has_choices:
            # "B", "B.", "(B) ...": a letter that stands alone. What follows it is not asked: letters are unambiguous.
            match = re.match(r"[\s(\"']*(\w+)\b", rest)
            if match and match[1] in task.labels[: len(question.choices)] and not _is_word(match, rest):
                return match[1]
        return _only(task, question, rest)
    return _only(task, question, rationale)


def _is_word(match: re.Match[str], rest: str) -> bool:
    # "A dog" begins with a word, "A. dog", "A)" and "A" alone with a place.
    following = rest[match.end() : match.end() + 2]
    return match[1] == "A" and following[:1] == " " and following[1:2].isalpha()


def _only(task: Task, question: Question, text: str) -> str | None:
    plain = f" {_plain(text)} "
    found = {}
    for label, answer in zip(task.labels, task.answers(question), strict=False):
        said = f" {_plain(answer)} "
        if said.strip() and said in plain:
            found[label] = said
    # "red" is not an answer of its own inside "dark red".
    whole = [label for label, said in found.items() if not any(said in o and said != o for o in found.values())]
    return whole[0] if len(whole) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.lower().translate(str.maketrans(string.punctuation, " " * len(string.punctuation))).split())

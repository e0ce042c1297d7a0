"""Instruction and response as one string, and private rows as such pairs.

A template is a text with `{question}` once and `{response}` once, at its end. What stands before the question is the
header, with which a model is asked to write instructions of its own; all of it is public.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from privkt.contracts import Example, Rows
from privkt.privacy import RefusedInput
from privkt.synthesis.labels import normalised

_PREAMBLE = "The following instruction describes a task. Respond to it fully.\n\n"
_PREAMBLE_INPUT = "The following instruction describes a task, and its input is what the task is about.\n\n"
_DOCTOR = "Answer the patient's question as a doctor would."
_LAYOUTS = {
    "alpaca": "{preamble}### Instruction:\n{question}\n\n### Response:\n{response}",
    "alpaca-task": "{preamble}### Instruction:\n{task}\n\n### Input:\n{question}\n\n### Response:\n{response}",
    "chat": "{preamble}<|user|>\n{question}\n<|assistant|>\n{response}",
    "chat-task": "{preamble}<|system|>\n{task}\n<|user|>\n{question}\n<|assistant|>\n{response}",
}
_PLACES = re.compile(r"(\{preamble\}|\{task\})")
_JOINED = "\n\n### Input:\n"
# A heading of the writer's own invention ("### Output:"), where headings are what a template's parts begin with: no
# instruction goes on behind it. An input does: rows with instructions of their own have one. Responses keep theirs.
_HEADING = re.compile(r"^###(?!\s*Input:)", re.M)


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairTemplateConfig(_Block):
    """The `template:` block. All of it is public.

    `task` is one instruction for all rows ("What is the sentiment of this news? ..."); the row is then its input.
    `preamble` replaces the built-in first line. `layout`, for `name: custom`, holds `{question}` and, last,
    `{response}`; `{task}` and `{preamble}` where these are given.
    """

    name: Literal["alpaca", "chatdoctor", "chat", "custom"] = "alpaca"
    task: str | None = None
    preamble: str | None = None
    layout: str | None = None


class FieldsConfig(_Block):
    """Where rows hold what: `response` is "label" or a further column; the text column is the question.

    `instruction` names a column with an instruction of its own for each row, of which the text is the input.
    `messages`: the text column holds conversations, JSON lists of {"role", "content"}, and there is no response column.
    """

    response: str = "response"
    instruction: str | None = None
    messages: bool = False

    @model_validator(mode="after")
    def _one_place_for_a_pair(self) -> FieldsConfig:
        if self.messages and (self.instruction is not None or self.response != "response"):
            raise ValueError(
                "messages: conversations hold question and response, so that neither `instruction` nor `response` is "
                "read; remove them, or `messages`"
            )
        return self

    def columns(self) -> dict[str, str]:
        """{key of this block: the further column that it names}."""
        if self.messages:
            return {}
        named = {} if self.response == "label" else {"response": self.response}
        return named | ({} if self.instruction is None else {"instruction": self.instruction})


class Pair(NamedTuple):
    """One instruction with its response; an instruction that has none yet has an empty one."""

    question: str
    response: str = ""


@dataclass(frozen=True)
class PairTemplate:
    """A layout split into what stands before the question (`opening`) and between it and the response (`middle`).

    Raises: RefusedInput, for a layout from which pairs could not be read back.
    """

    opening: str
    middle: str
    task: str = ""

    def __post_init__(self) -> None:
        if not self.middle.strip():
            raise RefusedInput(
                "template.layout must have some words or marks between {question} and {response}, which tell where an "
                "answer begins, got none; write e.g. '### Question:\\n{question}\\n### Answer:\\n{response}'"
            )

    @property
    def response_mark(self) -> str:
        """What a model writes between an instruction and its response, without white space."""
        return self.middle.strip()

    @property
    def question_mark(self) -> str:
        """The last line before a question, which shows where another instruction begins; "" if there is none."""
        lines = [line for line in self.opening.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def prompt(self, question: str) -> str:
        """What a model continues with a response."""
        return f"{self.opening}{question}{self.middle}"

    def render(self, pair: Pair) -> str:
        """The whole text of a pair."""
        return self.prompt(pair.question) + pair.response

    def writing_prompt(self, shown: Sequence[Pair] = ()) -> str:
        """What a model continues with an instruction, after others; none of them makes it the bare header."""
        before = self.question_mark + "\n" if self.question_mark else ""
        parts = [f"{pair.question}{self.middle}{pair.response}" if pair.response else pair.question for pair in shown]
        return self.opening + "".join(f"{part}\n\n{before}" for part in parts)

    def read(self, written: str) -> Pair:
        """What a model wrote after the header: an instruction, and a response if it went on to one.

        Edge cases: whatever follows the pair, the header's lines or another pair, is cut off; of the instruction also
            what stands under a heading that is none of the template's.
        """
        question, _, rest = written.partition(self.response_mark)
        if self.response_mark.startswith("###") and (heading := _HEADING.search(question)):
            question = question[: heading.start()]
        return Pair(self.before_marks(question), self.before_marks(rest.split(self.response_mark)[0]))

    def is_clean(self, text: str) -> bool:
        """Whether none of the template's own marks is left in a text."""
        return self.response_mark not in text and not (self.question_mark and self.question_mark in text)

    def example(self, pair: Pair, loss: str) -> Example:
        """The training example of a pair: loss on the response, or on everything after the header."""
        if loss == "response":
            return Example(self.prompt(pair.question), pair.response)
        return Example(self.opening, f"{pair.question}{self.middle}{pair.response}")

    def before_marks(self, text: str) -> str:
        """What a model wrote before it began another text of this template, without white space around it."""
        marks = [line.strip() for line in self.opening.splitlines() if line.strip()]
        return text[: min((text.find(mark) for mark in marks if mark in text), default=len(text))].strip()


def make_pair_template(config: PairTemplateConfig) -> PairTemplate:
    """The template of a config. Raises RefusedInput, for a custom layout without its two fields."""
    task = config.task or (_DOCTOR if config.name == "chatdoctor" else "")
    if config.name == "custom":
        layout = config.layout or ""
        if layout.count("{question}") != 1 or layout.count("{response}") != 1 or not layout.endswith("{response}"):
            raise RefusedInput(
                "template.layout must hold {question} once and end with {response}, once, for a custom template; write "
                "e.g. 'Question: {question}\\nAnswer: {response}'"
            )
    elif config.layout is not None:
        raise RefusedInput(
            f"template.layout belongs to a custom template, got one beside name {config.name!r}; write `name: custom`, "
            "or remove it"
        )
    else:
        style = "chat" if config.name == "chat" else "alpaca"
        layout = _LAYOUTS[f"{style}-task" if task else style]
    preamble = config.preamble
    if preamble is None:
        preamble = "" if config.name in ("chat", "custom") else _PREAMBLE_INPUT if task else _PREAMBLE
    for key, given in (("task", config.task), ("preamble", config.preamble)):
        if config.name == "custom" and given and f"{{{key}}}" not in layout:
            raise RefusedInput(
                f"template.{key}: a custom layout must say where it stands, and has no {{{key}}}; write it into "
                "template.layout, or remove the key"
            )
    preamble = preamble.replace("{task}", task)
    # Parted before anything is put in: a task may have braces of its own.
    opening, middle = (
        _filled(part, preamble, task) for part in layout.removesuffix("{response}").split("{question}", 1)
    )
    return PairTemplate(opening, middle, task)


def _filled(part: str, preamble: str, task: str) -> str:
    return "".join({"{preamble}": preamble, "{task}": task}.get(piece, piece) for piece in _PLACES.split(part))


def read_pairs(rows: Rows, fields: FieldsConfig, names: Mapping[str, str]) -> list[Pair]:
    """One pair a row, in order; labels by their names.

    Guarantee: one record gives one pair and nothing else.
    Raises: RefusedInput, naming a column or a row's number, never what it holds.
    """
    if fields.messages:
        return [_from_messages(text, number) for number, text in enumerate(rows.text, 1)]
    if fields.response == "label":
        if rows.label is None:
            raise RefusedInput(
                "fields.response: label needs a column of labels, got none; add `label:` and `labels:` to the data"
            )
        responses = tuple(names.get(label, label) for label in rows.label)
    else:
        responses = _column(rows, fields.response, "response")
    questions = rows.text
    if fields.instruction is not None:
        own = _column(rows, fields.instruction, "instruction")
        questions = tuple(f"{a}{_JOINED}{b}" if b.strip() else a for a, b in zip(own, rows.text, strict=True))
    return [Pair(question.strip(), response.strip()) for question, response in zip(questions, responses, strict=True)]


def _column(rows: Rows, name: str, what: str) -> tuple[str, ...]:
    if name not in rows.columns:
        raise RefusedInput(
            f"fields.{what}: the data must have a column {name!r}, and it is not among `columns`, which lists "
            f"{', '.join(sorted(rows.columns)) or 'none'}; add it there"
        )
    return rows.columns[name]


def _from_messages(text: str, number: int) -> Pair:
    """The last answer of a conversation, and all that came before it as the question."""
    fault = None
    try:
        turns = [(str(turn["role"]), str(turn["content"]).strip()) for turn in json.loads(text)]
    except (ValueError, TypeError, KeyError):
        turns, fault = [], "must be a JSON list of objects with role and content"
    if fault is None and (len(turns) < 2 or turns[-1][0] != "assistant" or turns[-2][0] != "user"):
        fault = "must end with a user's turn and an assistant's after it"
    if fault is not None:
        raise RefusedInput(f"fields.messages: row {number} {fault}; mend the row")
    before = turns[:-1]
    if len(before) == 1:
        return Pair(before[0][1], turns[-1][1])
    return Pair("\n\n".join(f"{role.capitalize()}: {content}" for role, content in before), turns[-1][1])


def names_of(labels: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The words that stand for each declared label in responses: `given` ones, or the label itself.

    Raises: RefusedInput, for names that could not be told apart in an answer, and for labels that nobody declared.
    """
    if unknown := sorted(set(given) - set(labels)):
        raise RefusedInput(
            f"knowledgesg.label_names: labels must be among the {len(labels)} declared ones, got {unknown[0]!r}; "
            "correct it, or add it to the data's `labels`"
        )
    found, seen = {label: given.get(label, label) for label in labels}, dict[str, str]()
    for label, name in found.items():
        plain = normalised(name)
        if not plain:
            raise RefusedInput(
                f"knowledgesg.label_names: the name of label {label!r} must have a letter or digit, got {name!r}; "
                "give it a word"
            )
        if plain in seen:
            raise RefusedInput(
                f"knowledgesg.label_names: names must differ in more than case and punctuation, got {name!r} for "
                f"{seen[plain]!r} and {label!r}; rename one"
            )
        seen[plain] = label
    return found

"""Which of two answers is better: asked of a model in both orders, or told from a reference answer without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from privkt.contracts import Backend, ChatTurn, Prompt, Sampling
from privkt.synthesis.asking import ask, uses_chat
from privkt.synthesis.similarity import rouge_l

_ASK = "Which answer helps the asker more? Reply with 1, 2, or tie."
_SAID = re.compile(
    r"^\W*(?:(?:the\s+)?(?:better|best)\s+(?:answer\s+)?(?:is\s+)?)?(?:answer\s*)?\W*(1|2|tie|equal|both|neither)\b",
    re.I,
)


@dataclass(frozen=True)
class Comparison:
    """`score`: the mean of win 1 and tie 0.5 for the first answers, over readable verdicts; None without any.

    Units: `wins`, `ties`, `losses` and `unreadable` count verdicts, two a question from a judge that is asked in both
        orders.
    """

    score: float | None
    wins: int
    ties: int
    losses: int
    unreadable: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


def compare(judge: Backend, questions: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Comparison:
    """A judge's verdicts on two sets of answers, each pair shown in both orders.

    Guarantee: a judge that always prefers what stands first (or second) gives 0.5. Questions may be private: neither
        they nor verdicts are kept, and whoever calls sees to it that the judge may read them.
    """
    chat = uses_chat(judge, "auto")
    rows = list(zip(questions, first, second, strict=True))
    prompts = [_prompt(q, a, b, chat=chat) for q, a, b in rows] + [_prompt(q, b, a, chat=chat) for q, a, b in rows]
    answers = ask(
        judge,
        prompts,
        Sampling(max_new_tokens=8, temperature=0.0, stop=() if chat else ("\n",)),
        title="judging answers",
    )
    said = [verdict(answer.text) for answer in answers]
    straight, turned = said[: len(rows)], said[len(rows) :]
    return _counted([*straight, *(None if v is None else 1 - v for v in turned)])


def compare_by_overlap(references: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Comparison:
    """The same without a model: the answer with the larger ROUGE-L to the reference wins, equal ones tie."""
    found: list[float | None] = []
    for reference, a, b in zip(references, first, second, strict=True):
        one, other = rouge_l(a, reference), rouge_l(b, reference)
        found.append(0.5 if one == other else float(one > other))
    return _counted(found)


def verdict(answer: str) -> float | None:
    """1.0 for the first answer, 0.0 for the second, 0.5 for a tie, None for anything else."""
    found = _SAID.match(answer)
    if found is None:
        return None
    return {"1": 1.0, "2": 0.0}.get(found.group(1), 0.5)


def _counted(verdicts: Sequence[float | None]) -> Comparison:
    readable = [v for v in verdicts if v is not None]
    return Comparison(
        score=sum(readable) / len(readable) if readable else None,
        wins=readable.count(1.0),
        ties=readable.count(0.5),
        losses=readable.count(0.0),
        unreadable=len(verdicts) - len(readable),
    )


def _prompt(question: str, one: str, two: str, *, chat: bool) -> Prompt:
    text = f"Question: {question}\n\nAnswer 1: {one}\n\nAnswer 2: {two}\n\n{_ASK}"
    return (ChatTurn("user", text),) if chat else f"{text}\nThe better answer is"

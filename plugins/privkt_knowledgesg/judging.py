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
    r"\W*(?:(?:the\s+)?(?:better|best)\s+(?:answer\s+)?(?:is\s+)?)?(?:answer\s*)?\W*(1|2|tie|equal|both|neither)\b(.*)",
    re.I,
)
# Behind a verdict these make another of it, or none.
_TURNED = re.compile(r"\b(?:1|2|and|or|nor|worse|less|not|equal\w*|tie|both|neither)\b|n't\b", re.I)


@dataclass(frozen=True)
class Comparison:
    """`score`: the mean of win 1 and tie 0.5 for the first answers, over the verdicts that count; None without any.

    Units: `wins`, `ties`, `losses` and `unreadable` count verdicts, two a question from a judge that is asked in both
        orders. There a question counts only if both verdicts were readable; otherwise both are `unreadable`.
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

    Guarantee: a judge that always prefers what stands first (or second), or says nothing that can be read, gives 0.5
        or nothing. Questions may be private: neither
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
    both = [
        (None, None) if one is None or other is None else (one, 1 - other)
        for one, other in zip(said[: len(rows)], said[len(rows) :], strict=True)
    ]
    return _counted([verdict for pair in both for verdict in pair])


def compare_by_overlap(references: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Comparison:
    """The same without a model: the answer with the larger ROUGE-L to the reference wins, equal ones tie."""
    found: list[float | None] = []
    for reference, a, b in zip(references, first, second, strict=True):
        one, other = rouge_l(a, reference), rouge_l(b, reference)
        found.append(0.5 if one == other else float(one > other))
    return _counted(found)


def verdict(answer: str) -> float | None:
    """1.0 for the first answer, 0.0 for the second, 0.5 for a tie, None for anything else.

    Edge cases: "1 is worse than 2" and "1 and 2 are equally good" are none.
    """
    found = _SAID.match(answer)
    if found is None or _TURNED.search(found.group(2)):
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

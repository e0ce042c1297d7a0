"""Which of two answers is better: asked of a model in both orders, or told from a reference answer without one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from privkt.contracts import Backend, ChatTurn, Prompt, Sampling
from privkt.synthesis.asking import ask, uses_chat
from privkt.synthesis.similarity import rouge_l
from privkt_knowledgesg.pairs import PairTemplate

_VERDICT, _FRAME = 8, 40  # tokens of a verdict, and around a question
_ASK = "Which answer helps the asker more? Reply with 1, 2, or tie."
_SAID = re.compile(
    r"\W*(?:(?:the\s+)?(?:better|best)\s+(?:answer\s+)?(?:is\s+)?)?(?:answer\s*)?\W*(1|2|tie|equal|both|neither)\b(.*)",
    re.I | re.S,
)
# Behind a verdict these make another of it, or none; its own number may come again ("1. Answer 1 says more").
_TURNED = re.compile(
    r"\b(?:not|never|hardly|worse|worst|less|least|inferior|wrong|weak\w*|poor\w*|bad|lack\w*|fail\w*|los(?:es|t|ing|er)"
    r"|mis(?:lead\w*|taken|ses|sing)|un(?:clear|helpful|safe|related|true|supported)|in(?:correct|accurate|complete)"
    r"|equal\w*|same|tie|both|neither)\b|n['’]t\b",
    re.I,
)
_NUMBER = re.compile(r"\b[12]\b")


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

    Edge cases: a question that the judge's context does not hold is not asked, and both verdicts are unreadable.
    Guarantee: a judge that always prefers what stands first (or second), or says nothing that can be read, gives 0.5
        or nothing. Questions may be private: neither
        they nor verdicts are kept, and whoever calls sees to it that the judge may read them.
    """
    chat = uses_chat(judge, "auto")
    whole = list(zip(questions, first, second, strict=True))
    rows = [row for row, fits in zip(whole, _fit(judge, whole), strict=True) if fits]
    prompts = [_prompt(q, a, b, chat=chat) for q, a, b in rows] + [_prompt(q, b, a, chat=chat) for q, a, b in rows]
    answers = ask(
        judge,
        prompts,
        Sampling(max_new_tokens=_VERDICT, temperature=0.0, stop=() if chat else ("\n",)),
        title="judging answers",
    )
    said = [verdict(answer.text) for answer in answers]
    both = [
        (None, None) if one is None or other is None else (one, 1 - other)
        for one, other in zip(said[: len(rows)], said[len(rows) :], strict=True)
    ]
    unasked: list[float | None] = [None] * (2 * (len(whole) - len(rows)))
    return _counted([verdict for pair in both for verdict in pair] + unasked)


def compare_by_perplexity(
    model: Backend, template: PairTemplate, questions: Sequence[str], first: Sequence[str], second: Sequence[str]
) -> Comparison:
    """The same by a model that only scores: the answer with the smaller loss a token behind its question wins.

    Edge cases: an empty answer loses against another; a loss that is no number is unreadable; a model prefers what is
        like its own, so take neither's writer.
    """
    prompts = [template.prompt(question) for question in questions]
    losses = [
        [
            -score.logprob / score.tokens if score.tokens and answer.strip() else math.inf
            for answer, score in zip(answers, model.score(prompts, list(answers)), strict=True)
        ]
        for answers in (first, second)
    ]
    return _counted([_smaller(one, two) for one, two in zip(*losses, strict=True)])


def compare_by_overlap(references: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Comparison:
    """The same without any model: the answer with the larger ROUGE-L to the reference wins, equal ones tie."""
    found: list[float | None] = []
    for reference, a, b in zip(references, first, second, strict=True):
        one, other = rouge_l(a, reference), rouge_l(b, reference)
        found.append(0.5 if one == other else float(one > other))
    return _counted(found)


def verdict(answer: str) -> float | None:
    """1.0 for the first answer, 0.0 for the second, 0.5 for a tie, None for anything else.

    Edge cases: "1 is worse than 2" and "1 and 2 are equally good" are none, nor is "1" with "2" in the next line: what
        is not sure to be a verdict is left out.
    """
    found = _SAID.match(answer)
    if found is None or set(_NUMBER.findall(found.group(2))) - {found.group(1)}:
        return None
    value = {"1": 1.0, "2": 0.0}.get(found.group(1), 0.5)
    return None if value != 0.5 and _TURNED.search(found.group(2)) else value


def _counted(verdicts: Sequence[float | None]) -> Comparison:
    readable = [v for v in verdicts if v is not None]
    return Comparison(
        score=sum(readable) / len(readable) if readable else None,
        wins=readable.count(1.0),
        ties=readable.count(0.5),
        losses=readable.count(0.0),
        unreadable=len(verdicts) - len(readable),
    )


def _smaller(one: float, two: float) -> float | None:
    if math.isnan(one) or math.isnan(two):
        return None
    return 0.5 if one == two else float(one < two)


def _fit(judge: Backend, rows: Sequence[tuple[str, str, str]]) -> list[bool]:
    """Which questions with their answers the judge's context holds, beside what a conversation adds."""
    room = judge.context_tokens
    asked = judge.count_tokens([_text(*row) for row in rows])
    if room is None or asked is None:
        return [True] * len(rows)
    return [count + _FRAME + _VERDICT <= room for count in asked]


def _text(question: str, one: str, two: str) -> str:
    return f"Question: {question}\n\nAnswer 1: {one}\n\nAnswer 2: {two}\n\n{_ASK}"


def _prompt(question: str, one: str, two: str, *, chat: bool) -> Prompt:
    text = _text(question, one, two)
    return (ChatTurn("user", text),) if chat else f"{text}\nThe better answer is"

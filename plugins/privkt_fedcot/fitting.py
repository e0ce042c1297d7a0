"""True questions of any length in a model's context: what does not fit is cut, since no row may stop a release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from privkt.contracts import Backend
from privkt_fedcot.tasks import Question


def fitted(
    backend: Backend, questions: Sequence[Question], build: Callable[[int, Question], str], new_tokens: int
) -> list[str]:
    """`build(i, question)` for each question; where that and `new_tokens` more exceed the context, of the question cut.

    Edge cases: a backend that cannot count tokens gets every prompt whole, and says itself what it cannot take.
    """
    prompts = [build(i, question) for i, question in enumerate(questions)]
    counts = backend.count_tokens(prompts)
    if counts is None or backend.context_tokens is None:
        return prompts
    room = backend.context_tokens - new_tokens
    for i, count in enumerate(counts):
        if count > room:
            prompts[i] = _cut(backend, partial(build, i), questions[i], room)
    return prompts


def _cut(backend: Backend, build: Callable[[Question], str], question: Question, room: int) -> str:
    """The prompt of the longest beginnings that fit, of the same number of characters for every part."""
    low, high = 0, max(map(len, (question.text, question.context or "", *question.choices)))
    while low < high:
        middle = (low + high + 1) // 2
        counts = backend.count_tokens([build(_begun(question, middle))])
        low, high = (middle, high) if counts is not None and counts[0] <= room else (low, middle - 1)
    return build(_begun(question, low))


def _begun(question: Question, length: int) -> Question:
    context = None if question.context is None else question.context[:length]
    return Question(question.text[:length], tuple(choice[:length] for choice in question.choices), context)

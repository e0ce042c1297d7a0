"""How an arm does on held-out rows: labels by the words of its answers, or free text beside the reference answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from privkt.contracts import Backend, Sampling, Score
from privkt.synthesis.labels import normalised
from privkt.synthesis.similarity import rouge_l
from privkt.synthesis.words import whole_word
from privkt_knowledgesg.pairs import Pair, PairTemplate


def answers_of(model: Backend, prompts: Sequence[str], template: PairTemplate, max_tokens: int) -> list[str]:
    """A model's greedy answers. Prompts may be private: they and the answers are kept nowhere."""
    stop = tuple(mark for mark in (template.question_mark, template.response_mark) if mark)
    found = model.generate(prompts, Sampling(max_new_tokens=max_tokens, temperature=0.0, stop=stop))
    return [template.before_marks(answer.text) for answer in found]


def label_in(answer: str, names: Mapping[str, str]) -> str | None:
    """The label whose name comes first in an answer, as a part of it; None without any.

    Edge cases: "Positive.", "it is positive" -> positive; "not sure" -> None. A name within another ("neutral" in
        "neutrality") counts, a longer one before a shorter at the same place; but one that begins or ends with a digit,
        or has one or two letters, is a word of its own: "in 2019: 5 stars" is no 1. Several letters of a script without
        spaces may stand anywhere.
    """
    said = normalised(answer)
    places = [(_place(normalised(name), said), -len(name), label) for label, name in names.items()]
    found = min((place for place in places if place[0] >= 0), default=None)
    return None if found is None else found[2]


def _place(name: str, said: str) -> int:
    """Where a name begins in an answer, or -1."""
    if not name:
        return -1
    if len(name) > 2 and not (name[0].isdigit() or name[-1].isdigit()):
        return said.find(name)
    found = re.search(whole_word(name), said)
    return -1 if found is None else found.start()


def label_scores(answers: Sequence[str], wanted: Sequence[str], names: Mapping[str, str]) -> dict[str, float]:
    """Accuracy and weighted F1; an answer without a label's name is wrong, and their share is `unparsed`."""
    from sklearn.metrics import f1_score

    found = [label_in(answer, names) for answer in answers]
    plain = ["" if label is None else label for label in found]
    return {
        "accuracy": sum(a == b for a, b in zip(plain, wanted, strict=True)) / len(wanted),
        "weighted_f1": float(f1_score(list(wanted), plain, labels=list(names), average="weighted", zero_division=0)),
        "unparsed": found.count(None) / len(found),
    }


def text_scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE-L with the reference answers, and the share of empty answers."""
    overlap = [rouge_l(a, b) for a, b in zip(answers, references, strict=True)]
    return {
        "rouge_l": sum(overlap) / len(overlap),
        "empty": sum(not answer for answer in answers) / len(answers),
    }


def perplexity(model: Backend, prompts: Sequence[str], references: Sequence[str]) -> float:
    """exp of the mean loss a token of the reference answers after their prompts."""
    found = model.score(list(prompts), list(references))
    tokens = sum(score.tokens for score in found)
    return math.exp(-sum(score.logprob for score in found) / tokens) if tokens else math.nan


def instruction_following_difficulty(model: Backend, pairs: Sequence[Pair], template: PairTemplate) -> list[float]:
    """Mean loss a token of each response after its instruction over that without it; below 1 the instruction helps.

    Edge cases: nan for an empty response, and for one that the model finds certain without any instruction.
    References: Li et al. 2024, From Quantity to Quality (IFD), section 2: a ratio of losses, not of perplexities.
    """
    responses = [pair.response for pair in pairs]
    after = model.score([template.prompt(pair.question) for pair in pairs], responses)
    alone = model.score([template.response_mark + "\n"] * len(pairs), responses)
    return [_loss(a) / _loss(b) if b.logprob else math.nan for a, b in zip(after, alone, strict=True)]


def _loss(score: Score) -> float:
    return -score.logprob / max(score.tokens, 1)

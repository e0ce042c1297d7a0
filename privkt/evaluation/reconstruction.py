"""Noisy texts read again by a language model: the law of every draw, and what makes sense in its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from privkt.contracts import NoProgress, Progress
from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.inversion import Guesses, bayes_guesses, normalised
from privkt.evaluation.law import Floats, Ids
from privkt.evaluation.readers import Reader
from privkt.privacy import RefusedInput

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TINY = 1e-300
_OPENING = 48  # rows of public texts that the model reads first


@dataclass(frozen=True)
class Reconstruction:
    """Shares of tokens named right in `texts` texts. Tokens of one text hang together: no interval is given.

    `blind`: the most frequent word always; `unigram`: the Bayes attack by law and word frequencies; `context`: law and
    language model, whose share in the mixture with word frequencies is `weight`.
    """

    texts: int
    tokens: int
    unchanged: float
    blind: float
    unigram: float
    context: float
    weight: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def reconstruct(
    guesses: Guesses,
    prior: Floats,
    outputs: Ids,
    reader: Reader,
    *,
    weight: float = 1.0,
    sweeps: int = 2,
    beams: int = 4,
) -> Ids:
    """The input rows of one noisy text, found by law and context. Shapes: outputs [n]; result [n].

    `guesses`: candidates with joint probabilities under `prior`, for these outputs. A causal reader is followed by beam
    search, the log probability of law and text together; a masked one word by word, `sweeps` times, from the unigram
    guess on. Words that the reader cannot say (padding, unknown) keep their share of the prior.
    `weight`: of ln p by the reader against ln p by the prior; 0 is the Bayes attack, which asks no reader.
    Edge cases: no output gives nothing. A context that is wrong misleads: this attack can be worse than the Bayes one.
    """

    def sense(before: Sequence[int], after: Sequence[int], ids: Ids) -> Floats:
        alone = np.log(np.maximum(prior[ids], _TINY))
        return alone if weight == 0 else weight * _context(reader, before, after, ids, prior) + (1 - weight) * alone

    listed = [_candidates(guesses, prior, int(y)) for y in outputs]
    if reader.both_sides:
        found = [int(ids[0]) for ids, _ in listed]
        for _ in range(sweeps):
            before = list(found)
            for i, (ids, likely) in enumerate(listed):
                found[i] = int(ids[(likely + sense(found[:i], found[i + 1 :], ids)).argmax()])
            if found == before:
                break
        return np.asarray(found, dtype=np.int64)
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for ids, likely in listed:
        grown: list[tuple[float, list[int]]] = []
        for score, words in kept:
            total = score + likely + sense(words, (), ids)
            grown += [(float(total[i]), [*words, int(ids[i])]) for i in np.argsort(-total, kind="stable")[:beams]]
        kept = sorted(grown, key=lambda one: -one[0])[:beams]
    return np.asarray(kept[0][1], dtype=np.int64)


def read_again(
    mechanism: TokenMechanism,
    texts: Sequence[Ids],
    reader: Reader,
    *,
    prior: Floats,
    known: Sequence[Ids] = (),
    candidates: int = 64,
    progress: Progress | None = None,
) -> Reconstruction:
    """Draws texts once and attacks them.

    Shapes: texts, rows of the vocabulary each; prior [V].
    `prior` is what the attacker knows of word frequencies: count it in other texts than these. `known`: public texts
    like these, which he makes noise of himself to find the best weight of the model, and lets the model read first;
    without any the weight is 1. `candidates`: how many inputs of each output go before the language model, the
    likeliest by law and prior.
    Raises: RefusedInput, for a mechanism whose law is not known, texts without a word, or a prior that is none.
    """
    truth = [np.asarray(text, dtype=np.int64) for text in texts if len(text)]
    if not truth:
        raise RefusedInput("attack: texts to read again must hold a word, got none; give others")
    weights = normalised(prior, mechanism.size)
    public = [np.asarray(text, dtype=np.int64) for text in known if len(text)]
    # what the model read first must not be what the weight is tuned on
    public, first = public[: -(-len(public) * 2 // 3)], public[-(-len(public) * 2 // 3) :]
    drawn, own = ([mechanism.sample_ids(text) for text in some] for some in (truth, public))
    outputs = np.concatenate(drawn)
    most = min(candidates, mechanism.size)
    guesses = bayes_guesses(mechanism, weights, most=most, outputs=np.concatenate([outputs, *own]))
    asked = _Remembering(reader)
    if first:
        reader.prime(np.concatenate(first)[:_OPENING].tolist())
    task = (progress or NoProgress()).task("reading noisy texts", len(own) * (len(WEIGHTS) - 1) + len(drawn), "texts")

    def named(weight: float, real: Ids, noisy: Ids) -> int:
        found = reconstruct(guesses, weights, noisy, asked, weight=weight)
        if weight:
            task.advance()
        return int((found == real).sum())

    scores = {weight: sum(named(weight, *pair) for pair in zip(public, own, strict=True)) for weight in WEIGHTS}
    weight = max(scores, key=lambda one: (scores[one], one)) if public else 1.0
    hits = sum(named(weight, real, noisy) for real, noisy in zip(truth, drawn, strict=True))
    inputs = np.concatenate(truth)
    return Reconstruction(
        texts=len(truth),
        tokens=len(inputs),
        unchanged=float((inputs == outputs).mean()),
        blind=float((inputs == weights.argmax()).mean()),
        unigram=guesses.hits(inputs, outputs) / len(inputs),
        context=hits / len(inputs),
        weight=weight,
    )


class _Remembering(Reader):
    """A reader that answers the same question once."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.vocabulary, self.both_sides = reader, reader.vocabulary, reader.both_sides
        self._answers: dict[tuple[tuple[int, ...], tuple[int, ...], bytes], Floats] = {}

    def scores(self, before: Sequence[int], after: Sequence[int], candidates: Ids) -> Floats:
        question = tuple(before), tuple(after), candidates.tobytes()
        if question not in self._answers:
            self._answers[question] = self.reader.scores(before, after, candidates)
        return self._answers[question]


def _candidates(guesses: Guesses, prior: Floats, output: int) -> tuple[Ids, Floats]:
    """(inputs, their ln p(output | input)), the likeliest by the unigram prior first."""
    assert guesses.joint is not None
    at = int(np.searchsorted(guesses.outputs, output))
    joint = guesses.joint[:, at]
    if not (joint > 0).any():  # no word that occurs gives this output
        return np.asarray([output]), np.zeros(1)
    ids = guesses.inputs[joint > 0, at]
    return ids, np.log(joint[joint > 0]) - np.log(prior[ids])


def _context(reader: Reader, before: Sequence[int], after: Sequence[int], ids: Ids, prior: Floats) -> Floats:
    """ln p of each candidate here: the reader's, scaled to what the prior leaves for words that it can say."""
    scores = reader.scores(before, after, ids)
    silent = np.isnan(scores)
    special = float(prior[[reader.vocabulary.unknown, reader.vocabulary.padding]].sum())
    return np.where(silent, np.log(np.maximum(prior[ids], _TINY)), scores + np.log(max(1 - special, _TINY)))

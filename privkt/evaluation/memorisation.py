"""What a model remembers of planted names and canaries: attacks to run on a copy, never on a model that is released.

Everything here is computed from private or planted text and stays with its owner; to find nothing proves nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from privkt.contracts import Backend, BackendError
from privkt.evaluation.confidence import Share, need_confidence
from privkt.privacy import RefusedInput


@dataclass(frozen=True)
class Planted:
    """A text with a name in it: what stands before it, the name, what stands after it."""

    prefix: str
    name: str
    suffix: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.prefix + self.name + self.suffix


@dataclass(frozen=True)
class Reconstruction:
    """How often the true name scores highest among the candidates.

    Units: `low` and `high` hold the true rate with the stated `confidence` (Clopper and Pearson 1934); `chance` is that
    of guessing blindly. `relative`: hits of a second attack, that takes the untrained control's score off, with its own
    interval; `control_hits`: those of the control, attacked like the model. Which attack is quoted is to be said
    beforehand.
    """

    records: int
    candidates: int
    hits: int
    rate: float
    low: float
    high: float
    confidence: float
    chance: float
    relative: int | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    control_hits: int | None = None
    control_low: float | None = None
    control_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, marked as what must not leave."""
        return {"private": "computed from private texts; no guarantee covers it; keep it to yourself", **asdict(self)}


def plant_names(
    texts: Sequence[str], candidates: Sequence[str], seed: int, *, before: str = "My name is "
) -> list[Planted]:
    """Each text with a name of the candidates put before it, for a copy of a data set."""
    draw = random.Random(seed)
    return [Planted(before, draw.choice(list(candidates)), f". {text}") for text in texts]


def name_reconstruction(
    model: Backend,
    records: Sequence[Planted],
    candidates: Sequence[str],
    *,
    control: Backend | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Reconstruction:
    """Puts every candidate in the name's place and takes the one with the likeliest text.

    `control`: the same model untrained; it shows what can be guessed without having seen the data.
    Edge cases: equal scores are decided by lot. White space that ends a prefix is scored with the name, since most
        tokenizers have it in a word's first token, and a text cut behind it is another than the one trained on.
    Raises: RefusedInput, for fewer than two candidates, repeated ones, a record whose name is not among them, or a
        `confidence` outside (0, 1); BackendError, for a model whose scores are no numbers.
    """
    need_confidence(confidence)
    names = list(candidates)
    if len(set(names)) != len(names) or len(names) < 2:
        raise RefusedInput(f"candidates: must be at least two different names, got {len(names)}; correct the list")
    if not records or any(record.name not in names for record in records):
        raise RefusedInput(
            "records: there must be some, and each one's name must be among the candidates; correct them"
        )
    scores = _scores(model, records, names)
    hits = _hits(scores, records, names, seed)
    share = Share.counted(hits, len(records), confidence)
    found = Reconstruction(
        len(records), len(names), hits, share.value, share.low, share.high, confidence, 1 / len(names)
    )
    if control is None:
        return found
    untrained = _scores(control, records, names)
    lifted = [[a - b for a, b in zip(one, two, strict=True)] for one, two in zip(scores, untrained, strict=True)]
    relative, control_hits = _hits(lifted, records, names, seed), _hits(untrained, records, names, seed)
    lift, blind = (Share.counted(count, len(records), confidence) for count in (relative, control_hits))
    return replace(
        found,
        relative=relative,
        relative_low=lift.low,
        relative_high=lift.high,
        control_hits=control_hits,
        control_low=blind.low,
        control_high=blind.high,
    )


def exposure(model: Backend, prefix: str, canary: str, others: Sequence[str]) -> float:
    """log2 of how far a canary's rank among candidates is above the last: log2(n) - log2(rank), in bits.

    Edge cases: a canary that is likelier than all `others` has log2(n), one that is likelier than none has 0; equal
        scores count against it. White space that ends the prefix is scored with what follows.
    Raises: RefusedInput, for no others, repeated ones, or the canary among them.
    References: Carlini et al. 2019, The Secret Sharer, definition 5.
    """
    texts = [canary, *others]
    if not others or len(set(texts)) != len(texts):
        raise RefusedInput(
            f"others: must be different texts and none of them the canary, got {len(others)} with {len(set(texts))} "
            "different ones, the canary counted; correct the list"
        )
    found = _logprobs(model, [prefix] * len(texts), texts)
    rank = sum(value >= found[0] for value in found)
    return math.log2(len(texts)) - math.log2(rank)


def _scores(model: Backend, records: Sequence[Planted], names: Sequence[str]) -> list[list[float]]:
    prompts = [record.prefix for record in records for _ in names]
    ends = [name + record.suffix for record in records for name in names]
    flat = _logprobs(model, prompts, ends)
    return [flat[i : i + len(names)] for i in range(0, len(flat), len(names))]


def _logprobs(model: Backend, prefixes: Sequence[str], ends: Sequence[str]) -> list[float]:
    """Of each end behind its prefix. They are tokenised apart, so that the cut is put before a word's own space."""
    cut = [len(prefix.rstrip()) for prefix in prefixes]
    whole = [prefix + end for prefix, end in zip(prefixes, ends, strict=True)]
    prompts = [text[:place] for text, place in zip(whole, cut, strict=True)]
    continuations = [text[place:] for text, place in zip(whole, cut, strict=True)]
    found = [score.logprob for score in model.score(prompts, continuations)]
    if wrong := sum(map(math.isnan, found)):
        raise BackendError(
            f"{model.name}: the score of every text must be a number, got nan for {wrong} of {len(found)}; it "
            "diverged in training, and an attack on it means nothing"
        )
    return found


def _hits(scores: Sequence[Sequence[float]], records: Sequence[Planted], names: Sequence[str], seed: int) -> int:
    # Lots of their own: with those of `plant_names`, a model that tells nothing apart would seem to know every name.
    draw, hits = random.Random(f"ties {seed}"), 0
    for row, record in zip(scores, records, strict=True):
        best = [name for name, value in zip(names, row, strict=True) if value == max(row)]
        hits += draw.choice(best) == record.name
    return hits

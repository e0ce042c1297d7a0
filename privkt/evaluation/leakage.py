"""What noisy texts really give away of the private ones: measured where both lie, and never to leave."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from privkt.evaluation.inversion import bayes_guesses
from privkt.synthesis.noisy_texts import NoisyText
from privkt.synthesis.privatiser import TextPrivatiser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_NAMES = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'’-]+", re.M)
_WORDS = re.compile(r"\d+(?:[.,]\d+)*|[\w'’-]+")


@dataclass(frozen=True)
class Survivors:
    """How many words of a kind stand in their own record's noisy text, and how many in another record's, by chance."""

    found: int
    survived: int
    by_chance: int


@dataclass(frozen=True)
class LeakReport:
    """Shares over the tokens of private texts; padding is not counted.

    `unchanged`: the very token came out. `bayes`: the token is what an attacker guesses who knows the law, the
    mechanism and how often each token occurs in these texts (None where no law is known); `bayes_blind`: what guessing
    the most frequent token finds without looking. `looked_at`: tokens that went into these two. `lengths`: distinct
    numbers of tokens that the noisy texts show; 1 where all are padded.
    """

    tokens: int
    unchanged: float
    bayes: float | None
    bayes_blind: float
    looked_at: int
    numbers: Survivors
    names: Survivors
    lengths: int
    cut: int

    def to_json(self) -> dict[str, Any]:
        """JSON values, marked as what must not leave."""
        return {"private": "computed from private texts; no guarantee covers it; keep it to yourself", **asdict(self)}

    def lines(self) -> list[str]:
        """The report in words."""
        kinds: Mapping[str, Survivors] = {"numbers": self.numbers, "names": self.names}
        guessed = "not known for this law" if self.bayes is None else f"{self.bayes:.1%}"
        return [
            f"of {self.tokens} tokens {self.unchanged:.1%} came out unchanged",
            f"an attacker who knows law and word frequencies guesses {guessed} of {self.looked_at} tokens, and "
            f"{self.bayes_blind:.1%} without looking",
            *(
                f"{name}: {one.survived} of {one.found} stand in their own noisy text, {one.by_chance} in another's"
                for name, one in kinds.items()
            ),
            "numbers of draws: all alike"
            if self.lengths <= 1
            else f"numbers of draws: {self.lengths} different ones are to be seen",
            f"{self.cut} texts were cut",
        ]


def leak_report(privatiser: TextPrivatiser, texts: Sequence[str], drawn: Sequence[NoisyText]) -> LeakReport:
    """Compares private texts with what was drawn for them, in the same order.

    Guarantee: none. Nothing of it may cross, decide about a release, or cause another draw.
    """
    import numpy as np

    inputs = [privatiser.inputs(text) for text in texts]
    flat = np.concatenate([*inputs, np.zeros(0, dtype=np.int64)])
    outputs = np.asarray([i for one in drawn for i in one.ids], dtype=np.int64)
    positions = np.concatenate([*(np.arange(len(row)) for row in inputs), np.zeros(0, dtype=np.int64)])
    real = flat != privatiser.vocabulary.padding
    flat, outputs, positions = flat[real], outputs[real], positions[real]
    guessed, blind, looked_at = _guessed(privatiser, flat, outputs, positions)
    # Case is folded: a vocabulary of lower-case words gives a name back all the same.
    noisy = [set(_WORDS.findall(one.text.casefold())) for one in drawn]
    return LeakReport(
        tokens=len(flat),
        unchanged=float((flat == outputs).mean()) if len(flat) else 0.0,
        bayes=guessed,
        bayes_blind=blind,
        looked_at=looked_at,
        numbers=_survivors([_NUMBERS.findall(text) for text in texts], noisy),
        names=_survivors([_NAMES.findall(text) for text in texts], noisy),
        lengths=len({len(one.ids) for one in drawn}),
        cut=sum(len(privatiser.vocabulary.encode(text)) > privatiser.k_max for text in texts),
    )


def _survivors(words: Sequence[Sequence[str]], noisy: Sequence[set[str]]) -> Survivors:
    others = [*noisy[1:], *noisy[:1]]
    return Survivors(
        found=sum(map(len, words)),
        survived=sum(word.casefold() in own for mine, own in zip(words, noisy, strict=True) for word in mine),
        by_chance=sum(word.casefold() in other for mine, other in zip(words, others, strict=True) for word in mine),
    )


def _guessed(
    privatiser: TextPrivatiser, inputs: NDArray[np.int64], outputs: NDArray[np.int64], positions: NDArray[np.int64]
) -> tuple[float | None, float, int]:
    """(share that the posterior's mode finds, share of the most frequent token, tokens looked at)."""
    import numpy as np

    if not len(inputs):
        return None, 0.0, 0
    blind = float(np.unique(inputs, return_counts=True)[1].max() / len(inputs))
    counts = np.bincount(inputs, minlength=privatiser.vocabulary.size)
    hits = 0
    for mechanism in dict.fromkeys(privatiser.mechanisms):
        if not getattr(mechanism, "has_law", True):
            return None, blind, 0
        mine = np.asarray([one is mechanism for one in privatiser.mechanisms])[positions]
        if mine.any():
            guesses = bayes_guesses(mechanism, counts, outputs=outputs[mine])
            hits += guesses.hits(inputs[mine], outputs[mine])
    return hits / len(inputs), blind, len(inputs)

"""Attacks on a token mechanism, side by side: what each finds by its law, and what it found in fresh draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.confidence import Share, need_confidence
from privkt.evaluation.inversion import Guesses, Posterior, blind_share, nearest_guesses, normalised
from privkt.evaluation.law import Extremes, Floats, Ids, Reading, Survival, read_law
from privkt.privacy.ceiling import guessing_ceiling

GUESSES = (1, 5, 10)


@dataclass(frozen=True)
class Attack:
    """One attacker's success. Keys are how many guesses it has.

    `expected`: exact, by the law, where it is known; `seen`: counted in fresh draws. `prior`: whose words are attacked.
    """

    name: str
    prior: str
    expected: dict[int, float]
    seen: dict[int, Share]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "attack": self.name,
            "prior": self.prior,
            "expected": {str(k): value for k, value in self.expected.items()},
            "seen": {
                str(k): {"share": one.value, "low": one.low, "high": one.high, "draws": one.trials}
                for k, one in self.seen.items()
            },
        }


@dataclass(frozen=True)
class WordAttacks:
    """All attacks on one mechanism, and what was read off its law on the way.

    `ceilings`: {prior: the most that any attacker finds in one guess at the certified epsilon}; 1 where nothing is
    certified. `extremes`: None where no law is known.
    """

    attacks: tuple[Attack, ...]
    ceilings: dict[str, float]
    extremes: Extremes | None


def attack_words(
    mechanism: TokenMechanism,
    vectors: NDArray[np.floating],
    *,
    priors: dict[str, Floats] | None = None,
    samples: int = 20_000,
    confidence: float = 0.99,
    seed: int = 0,
) -> WordAttacks:
    """Blind guessing, the nearest word and (where a law is known) the Bayes attack, under each named prior.

    `priors`: a uniform one if left out. `samples`: fresh draws for each prior, of inputs from the public `seed`.
    Guarantee: with a law, the Bayes attack's expected success is the largest that any attacker has against one token;
        the law is read once, and memory grows with the vocabulary, not with its square.
    Edge cases: without a law only blind guessing and the nearest word are tried, which bound nothing from above.
    """
    need_confidence(confidence)
    size = mechanism.size
    known = {name: normalised(prior, size) for name, prior in (priors or {"uniform": np.full(size, 1 / size)}).items()}
    guesses = tuple(k for k in GUESSES if k <= size)
    posteriors = {name: Posterior(prior, guesses[-1]) for name, prior in known.items()}
    survivals = {name: Survival(prior) for name, prior in known.items()}
    extremes = Extremes(size) if mechanism.has_law else None
    if extremes is not None:
        readings: list[Reading] = [extremes, *posteriors.values(), *survivals.values()]
        read_law(mechanism, readings)
    attacks: list[Attack] = []
    generator = np.random.default_rng(seed)
    for name, prior in known.items():
        inputs = generator.choice(size, size=samples, p=prior)
        outputs = mechanism.sample_ids(inputs)
        pairs = inputs, outputs
        blind = Guesses(np.arange(size), np.repeat(np.argsort(-prior, kind="stable")[: guesses[-1], None], size, 1))
        attacks.append(
            Attack("blind guess", name, {k: blind_share(prior, k) for k in guesses}, seen(blind, *pairs, confidence))
        )
        near = nearest_guesses(vectors, outputs, most=guesses[-1])
        exact = {1: survivals[name].share} if extremes is not None else {}
        attacks.append(Attack("nearest word", name, exact, seen(near, *pairs, confidence)))
        if extremes is not None:
            best = posteriors[name].guesses()
            expected = {k: best.expected(k) for k in guesses}
            attacks.append(Attack("Bayes", name, expected, seen(best, *pairs, confidence)))
    epsilon = mechanism.certificate.epsilon
    ceilings = {name: guessing_ceiling(epsilon, prior.tolist()) for name, prior in known.items()}
    return WordAttacks(tuple(attacks), ceilings, extremes)


def seen(
    guesses: Guesses, inputs: Ids, outputs: Ids, confidence: float, numbers: Sequence[int] = GUESSES
) -> dict[int, Share]:
    """What guesses find in draws, each draw independent of the others."""
    if not len(inputs):
        return {}
    return {
        k: Share.counted(guesses.hits(inputs, outputs, k), len(inputs), confidence)
        for k in numbers
        if k <= len(guesses.inputs)
    }


def exceeding(loss: float, nominal: float) -> bool:
    """Whether a loss is above an epsilon by more than rounding."""
    return math.isinf(loss) or loss > nominal * (1 + 1e-9) + 1e-9

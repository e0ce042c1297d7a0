"""How much epsilon a mechanism loses at least, from its draws alone. A bound from below: passing proves nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from privkt.contracts import Mechanism
from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.attacks import exceeding
from privkt.evaluation.confidence import need_confidence
from privkt.evaluation.events import Cells, Coding, Words, best_event, lower_bound
from privkt.evaluation.law import Floats, likelihood_order, true_epsilon
from privkt.privacy import Kind, RefusedInput
from privkt.privacy.guarantee import rounded_down, rounded_up

LEAST_DRAWS = 100


@dataclass(frozen=True)
class PairAudit:
    """Two inputs and what their draws say: the better of the two directions.

    `lower`: the bound from below, 0 where none was found. `promised`: what the mechanism promises for this pair, at
    `Audit.delta`. `hits` and `misses`: draws of the one and of the other input in the event, of `draws` each.
    `truth`: the pair's epsilon by enumeration, None where outputs cannot be listed.
    """

    pair: tuple[Any, Any]
    lower: float
    promised: float
    hits: int
    misses: int
    draws: int
    truth: float | None = None

    @property
    def violation(self) -> bool:
        """Whether the draws say that more is lost than is promised."""
        return exceeding(self.lower, self.promised)


@dataclass(frozen=True)
class Audit:
    """Pairs that were audited together: all of their bounds hold at once with probability `confidence`."""

    pairs: tuple[PairAudit, ...]
    confidence: float
    delta: float
    promised: float

    @property
    def lower(self) -> float:
        """The largest of the pairs' bounds."""
        return max(one.lower for one in self.pairs)

    @property
    def violation(self) -> bool:
        """Whether a pair lost more than is promised for it."""
        return any(one.violation for one in self.pairs)

    def __str__(self) -> str:
        at = f" at delta = {rounded_up(self.delta, 3)}" if self.delta else ""
        found = (
            f"epsilon >= {rounded_down(self.lower, 3)}{at}, a lower bound at confidence {self.confidence:g} from "
            f"{self.pairs[0].draws} draws of each input counted and as many to choose what to count"
        )
        if self.violation:
            return f"{found}: VIOLATION, the mechanism promises {rounded_up(max(o.promised for o in self.broken()))}"
        return f"{found}; no violation was found, which proves nothing"

    def broken(self) -> tuple[PairAudit, ...]:
        """The pairs that lost more than is promised."""
        return tuple(one for one in self.pairs if one.violation)

    def to_json(self) -> dict[str, Any]:
        """JSON values. Inputs are shown: they were public ones."""
        return {
            "statement": str(self),
            "epsilon_lower": self.lower,
            "confidence": self.confidence,
            "delta": self.delta,
            "promised": self.promised,
            "violation": self.violation,
            "pairs": [
                {
                    "pair": [str(value) for value in one.pair],
                    "epsilon_lower": one.lower,
                    "promised": one.promised,
                    "epsilon_enumerated": one.truth,
                    "hits": one.hits,
                    "misses": one.misses,
                    "draws": one.draws,
                }
                for one in self.pairs
            ],
        }


def audit(
    mechanism: Mechanism[Any, Any],
    pairs: Sequence[tuple[Any, Any]],
    *,
    samples: int = 20_000,
    confidence: float = 0.99,
    delta: float | None = None,
) -> Audit:
    """Draws `samples` outputs of both inputs of each pair, and bounds epsilon from below by what tells them apart.

    A quarter of the draws orders the outputs, a quarter chooses the event, half counts it: Clopper and Pearson on both
    sides, ln((p_low - delta) / q_high), for both directions of every pair, Bonferroni over all of them.
    `pairs`: public inputs that the guarantee calls neighbours, chosen without a look at these draws. `delta`: that of
    the guarantee if left out.
    Guarantee: with probability `confidence` at least, no bound is above the true epsilon of its pair at `delta`,
        whatever the mechanism does, if its draws are independent. Nothing is known from above: a mechanism that passes
        may be broken in ways that these pairs, these events or so few draws do not show.
    Raises: RefusedInput, for no pair, inputs that are known to be no neighbours, fewer than 100 samples, a confidence
        outside (0, 1), or what `sample` refuses.
    References: Jagielski, Ullman, Oprea 2020, "Auditing Differentially Private Machine Learning"; Clopper, Pearson
        1934.
    """
    need_confidence(confidence)
    if not pairs:
        raise RefusedInput("audit: there must be a pair of inputs to tell apart, got none; name neighbours")
    for pair in pairs if mechanism.guarantee.kind is not Kind.METRIC else ():  # that kind compares any two
        if (why := mechanism.why_not_neighbours(*pair)) is not None:
            raise RefusedInput(
                f"audit: inputs must be neighbours, which the guarantee of {mechanism.name} compares, and two are "
                f"none: {why}; name others, or make the mechanism for inputs so far apart"
            )
    if samples < LEAST_DRAWS:
        raise RefusedInput(f"audit: samples must be at least {LEAST_DRAWS}, got {samples}; 20000 is usual")
    guarantee = mechanism.guarantee
    at = (guarantee.delta if guarantee.is_private else 0.0) if delta is None else delta
    if not 0 <= at < 1:
        raise RefusedInput(f"audit: delta must lie in [0, 1), got {at!r}; 0 is pure")
    risk = (1 - confidence) / (4 * len(pairs))  # two directions a pair, two bounds a direction
    found = tuple(_audited(mechanism, pair, samples, risk, at) for pair in pairs)
    return Audit(found, confidence, at, max(one.promised for one in found))


def promised(mechanism: Mechanism[Any, Any], x: Any, y: Any) -> float:
    """The epsilon that a mechanism promises for two neighbours; infinity where it promises none.

    A metric guarantee promises by distance, where the mechanism has a `distance`.
    """
    guarantee = mechanism.guarantee
    if not guarantee.is_private:
        return math.inf
    bound = mechanism.certificate.epsilon if isinstance(mechanism, TokenMechanism) else math.inf
    if guarantee.kind is not Kind.METRIC:
        return min(bound, guarantee.epsilon)
    distance = getattr(mechanism, "distance", None)
    if distance is None:
        return bound
    assert guarantee.metric_scale is not None
    return min(bound, guarantee.epsilon * float(distance(x, y)) / guarantee.metric_scale)


def _audited(
    mechanism: Mechanism[Any, Any], pair: tuple[Any, Any], samples: int, risk: float, delta: float
) -> PairAudit:
    quarter = samples // 4
    counted = samples - 2 * quarter
    drawn = [_draws(mechanism, value, samples) for value in pair]
    laws = _laws(mechanism, pair)
    coding: Coding | Words
    if isinstance(mechanism, TokenMechanism):
        coding = Words(mechanism.size)
    else:
        coding = Coding([*drawn[0][:quarter], *drawn[1][:quarter]], pair)
    parts = [
        [coding.counts(one[start:end]) for one in drawn]
        for start, end in ((0, quarter), (quarter, 2 * quarter), (2 * quarter, samples))
    ]
    best = -math.inf, 0, 0
    for a, b in ((0, 1), (1, 0)):
        known: Cells | None = None
        if isinstance(coding, Words) and laws is not None:
            known = likelihood_order(laws[a], laws[b])
        event, _ = best_event(
            (parts[0][a], parts[0][b]),
            (parts[1][a], parts[1][b]),
            draws=quarter,
            risk=risk,
            delta=delta,
            ordered=coding.ordered,
            known=known,
        )
        hits, misses = int(parts[2][a][event].sum()), int(parts[2][b][event].sum())
        bound = float(lower_bound(np.asarray(hits), np.asarray(misses), counted, risk, delta))
        best = max(best, (bound, hits, misses))
    truth = None if laws is None else max(true_epsilon(*laws, delta), true_epsilon(*laws[::-1], delta))
    bound, hits, misses = best
    return PairAudit(pair, max(0.0, bound), promised(mechanism, *pair), hits, misses, counted, truth)


def _draws(mechanism: Mechanism[Any, Any], value: Any, samples: int) -> Any:
    if isinstance(mechanism, TokenMechanism):
        return mechanism.sample_ids(np.full(samples, value, dtype=np.int64))
    return [mechanism.sample(value) for _ in range(samples)]


def _laws(mechanism: Mechanism[Any, Any], pair: tuple[Any, Any]) -> tuple[Floats, Floats] | None:
    """The probabilities of both inputs over the same outputs, where they are known."""
    if isinstance(mechanism, TokenMechanism):
        if not mechanism.has_law:
            return None
        p, q = mechanism.probabilities(np.asarray(pair, dtype=np.int64))
        return p, q
    first, second = (mechanism.distribution(value) for value in pair)
    if first is None or second is None:
        return None
    outputs = list(dict.fromkeys([*first, *second]))
    return np.asarray([first.get(o, 0.0) for o in outputs]), np.asarray([second.get(o, 0.0) for o in outputs])

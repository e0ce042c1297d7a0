"""One mechanism under all audits and attacks: what it claims beside what is known and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privkt.contracts import Mechanism
from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.attacks import WordAttacks, attack_words
from privkt.evaluation.audit import Audit, audit
from privkt.evaluation.law import Floats, PairLosses, pair_losses
from privkt.evaluation.neighbours import example_neighbours, word_pairs
from privkt.privacy import Certificate, Guarantee

PAIRS = 4


@dataclass(frozen=True)
class MechanismReport:
    """What was found out about one mechanism; everything in it is public or about the priors' texts.

    `truth`: epsilon by enumeration, over all inputs for words and over the audited pairs else; None where outputs
    cannot be listed. `certificate`, `attacks`, `losses`: of token mechanisms alone; the losses need a law.
    """

    name: str
    nominal: float
    guarantee: Guarantee
    audit: Audit
    truth: float | None
    certificate: Certificate | None = None
    attacks: WordAttacks | None = None
    losses: PairLosses | None = None

    @property
    def violation(self) -> bool:
        """Whether more is lost than is promised: by the draws, or by the enumerated law itself."""
        return self.audit.violation or self.untrue

    @property
    def untrue(self) -> bool:
        """Whether enumeration contradicts the certificate; rounding of the enumeration is allowed for."""
        if self.truth is None or self.certificate is None or not self.guarantee.is_private:
            return False
        return self.truth > self.certificate.epsilon + 1e-6

    def to_json(self) -> dict[str, Any]:
        """JSON values; infinities are floats."""
        certificate, losses = self.certificate, self.losses
        return {
            "mechanism": self.name,
            "nominal_epsilon": self.nominal,
            "guarantee": {"statement": str(self.guarantee), **self.guarantee.to_json()},
            "certificate": None
            if certificate is None
            else {"epsilon_range": certificate.epsilon_range, "epsilon_exact": certificate.epsilon_exact},
            "epsilon_enumerated": self.truth,
            "audit": self.audit.to_json(),
            "attacks": [] if self.attacks is None else [one.to_json() for one in self.attacks.attacks],
            "ceilings": {} if self.attacks is None else self.attacks.ceilings,
            "word_pairs": None
            if losses is None
            else {
                "words": losses.words,
                "of": losses.size,
                "pairs": len(losses.losses),
                "share_above_nominal": losses.share_above(self.nominal),
                "share_above_nominal_by_the_word_itself": losses.own_share_above(self.nominal),
                "share_that_tells_all": float(np.isinf(losses.losses).mean()) if len(losses.losses) else 0.0,
                "median": float(np.median(losses.losses)) if len(losses.losses) else 0.0,
                "worst": losses.worst,
            },
            "violation": self.violation,
        }


def report_on(
    mechanism: Mechanism[Any, Any],
    *,
    nominal: float,
    vectors: NDArray[np.floating] | None = None,
    priors: dict[str, Floats] | None = None,
    pairs: Sequence[tuple[Any, Any]] | int = PAIRS,
    samples: int = 20_000,
    confidence: float = 0.99,
    tell: Callable[[str], None] = lambda _: None,
) -> MechanismReport:
    """Attacks and audits a mechanism. Spends nothing: every input is made up or drawn from `priors`.

    `nominal`: the epsilon that was asked for. `vectors`: the table of a token mechanism. `pairs`: inputs to tell
    apart, or for words how many pairs to choose. `tell` hears what is being done.
    Raises: RefusedInput, where inputs must be named and are not; what `audit` and `attack_words` refuse.
    """
    if not isinstance(mechanism, TokenMechanism):
        known = example_neighbours(mechanism) if isinstance(pairs, int) else list(pairs)
        tell(f"drawing {samples} outputs of each input")
        found = audit(mechanism, known, samples=samples, confidence=confidence)
        truths = [one.truth for one in found.pairs if one.truth is not None]
        truth = max(truths) if len(truths) == len(found.pairs) else None
        return MechanismReport(mechanism.name, nominal, mechanism.guarantee, found, truth)
    assert vectors is not None, "a token mechanism is attacked with its table"
    tell("reading the law and attacking" if mechanism.has_law else "attacking")
    attacks = attack_words(mechanism, vectors, priors=priors, samples=samples, confidence=confidence)
    extremes = attacks.extremes
    if isinstance(pairs, int):
        pairs = word_pairs(mechanism, pairs, samples=samples, vectors=vectors, extremes=extremes)
    tell(f"drawing {samples} outputs of each of {2 * len(pairs)} words")
    found = audit(mechanism, pairs, samples=samples, confidence=confidence)
    if extremes is not None:
        tell("comparing pairs of words")
    return MechanismReport(
        mechanism.name,
        nominal,
        mechanism.guarantee,
        found,
        None if extremes is None else extremes.loss,
        mechanism.certificate,
        attacks,
        None if extremes is None else pair_losses(mechanism),
    )

"""A word of a public vocabulary for each word: itself with given odds, else any."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privkt.contracts import TokenMechanism
from privkt.privacy import Certificate, Guarantee, Kind, Neighbouring, RefusedInput, Unit, pure_event

if TYPE_CHECKING:
    from dp_accounting import DpEvent

PROOF = "every word's weights are `odds` once and 1 else, with one total: no ratio of two exceeds `odds`"


class Dice(TokenMechanism):
    """k-ary randomised response: the word itself with weight `odds`, each other one of `words` with weight 1.

    Guarantee: pure epsilon = ln(odds) between any two words: every row of the law has the same total, so a probability
        of an output is at most `odds` times that of another input. The draw is one uniform integer below the total.
    Edge cases: odds of 1 draw uniformly and cost 0.
    Raises: RefusedInput, unless words >= 2 and odds >= 1 are integers, or for an id outside [0, words).
    """

    name = "dice"
    version = "1"

    def __init__(self, words: int, odds: int = 100) -> None:
        if not (isinstance(words, int) and isinstance(odds, int) and words >= 2 and odds >= 1):
            raise RefusedInput(
                f"dice: words and odds must be integers with words >= 2 and odds >= 1, got {words!r} and {odds!r}; "
                "count the vocabulary"
            )
        self.size, self.odds = words, odds

    def event(self) -> DpEvent:
        return pure_event(self.certificate.epsilon)

    @property
    def certificate(self) -> Certificate:
        # One step up: `log` is good to less than one unit in the last place. The totals are equal whatever the input,
        # so what was enumerated for static words holds for any.
        # Not of bounded range: epsilon^2 / 8 is no zCDP bound of randomised response.
        epsilon = math.nextafter(math.log(self.odds), math.inf) if self.odds > 1 else 0.0
        return Certificate(epsilon, epsilon, bounded_range=False)

    @property
    def guarantee(self) -> Guarantee:
        epsilon = self.certificate.epsilon
        return Guarantee(Kind.PURE, epsilon, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL, proof=PROOF)

    def sample_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        self.need_ids(ids)
        drawn = [self._one_draw(word) for word in ids.ravel().tolist()]
        return np.array(drawn, dtype=np.int64).reshape(ids.shape)

    def _one_draw(self, word: int) -> int:
        # of the total, the first `odds` points are the word's own and the others one for each other word
        point = secrets.randbelow(self.odds + self.size - 1) - self.odds
        if point < 0:
            return word
        return point if point < word else point + 1

    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        self.need_ids(ids)
        weights = np.ones((len(ids), self.size))
        weights[np.arange(len(ids)), ids.astype(np.int64)] = self.odds
        return weights / (self.odds + self.size - 1)

    def parameters(self) -> Mapping[str, Any]:
        return {"words": self.size, "odds": self.odds}

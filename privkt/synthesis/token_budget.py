"""How a document's budget is shared among its tokens: by position, by a public type, or evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from privkt.contracts.tokens import TokenMechanism
from privkt.privacy import (
    Certificate,
    Guarantee,
    Kind,
    Neighbouring,
    RefusedInput,
    Unit,
    document_cost,
    none_event,
    pure_event,
)
from privkt.synthesis.token_claims import check_claims, drawn_by

if TYPE_CHECKING:
    import numpy as np
    from dp_accounting import DpEvent
    from numpy.typing import NDArray

#: Makes a token mechanism of a nominal epsilon, over one fixed table.
Maker = Callable[[float], TokenMechanism]
_CLOSE = 0.98  # of the budget; a table costs seconds to certify, and a closer search would certify many
_LARGEST_ENUMERATED = 4096  # rows; their law is 128 MiB


def by_position(make: Maker, epsilons: Sequence[float]) -> tuple[TokenMechanism, ...]:
    """One mechanism a position, of the epsilon that the position was given before any text is seen.

    Guarantee: a document costs the sum of what its positions are certified for.
    Edge cases: positions of equal epsilon share a mechanism.
    Raises: RefusedInput, for no position, or an epsilon that is not finite and above 0.
    """
    if not epsilons or not all(math.isfinite(e) and e > 0 for e in epsilons):
        raise RefusedInput(
            f"budget by position: every position must have a finite epsilon > 0, got {len(epsilons)} of them; leave a "
            "position out by a smaller k_max"
        )
    made = {epsilon: make(epsilon) for epsilon in dict.fromkeys(epsilons)}
    return tuple(made[epsilon] for epsilon in epsilons)


def for_document(make: Maker, epsilon: float, delta: float, k_max: int, *, tries: int = 6) -> TokenMechanism:
    """The sharpest mechanism found of which `k_max` draws cost at most `epsilon` at `delta`.

    Guarantee: the cost is computed from the certificate of the mechanism that is returned, never from its nominal
        epsilon; it is at most `epsilon`, and seldom below 0.98 of it.
    Raises: RefusedInput, where no try came within the budget.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise RefusedInput(f"budget of a document: epsilon must be finite and > 0, got {epsilon:g}; ask for some")
    best: TokenMechanism | None = None
    best_cost = 0.0
    nominal = epsilon / k_max
    if delta > 0:  # k rho + 2 sqrt(k rho ln(1/delta)) = epsilon, with rho = nominal^2 / 8
        log = math.log(1 / delta)
        nominal = max(nominal, math.sqrt(8 / k_max) * (math.sqrt(log + epsilon) - math.sqrt(log)))
    for _ in range(tries):
        made = make(nominal)
        if not made.guarantee.is_private:
            return made
        cost = document_cost(made.certificate, k_max, delta=delta).guarantee.epsilon
        if best_cost < cost <= epsilon:
            best, best_cost = made, cost
        if _CLOSE * epsilon <= cost <= epsilon or cost == 0:
            return made
        nominal *= (epsilon / cost) * (1 - 1e-3) if math.isfinite(cost) else 0.5
    if best is None:
        raise RefusedInput(
            f"budget of a document: no law of this mechanism was found that costs {k_max} tokens at most epsilon = "
            f"{epsilon:g}; ask for more, or for fewer tokens"
        )
    return best


class ByTokenType(TokenMechanism):
    """One law a token type: which type a token has is a public map, and nothing inside a document changes it.

    `types`: the type of each row, an index into `mechanisms`, all over one table.
    Guarantee: the certificate of the whole table, between any two tokens of any types. If every mechanism is of bounded
        range (weights of each input in one public interval, all outputs possible), probabilities of type a lie within
        a factor e^(range_a / 2) of 1/V on either side, so two types are at most e^((range_a + range_b) / 2) <=
        e^(max range) apart, and the log ratios of two rows span no more. Otherwise the table is enumerated.
    Edge cases: a sharp type among gentle ones makes every token cost as much; only its own tokens are kept better.
    Raises: RefusedInput, for a map that does not fit the table, for claims that a type's certificate does not cover,
        and for laws that are not of bounded range over a table too large to enumerate.
    """

    name = "by_token_type"

    def __init__(self, mechanisms: Sequence[TokenMechanism], types: NDArray[np.int64]) -> None:
        import numpy as np

        self.mechanisms, self.types = tuple(mechanisms), np.asarray(types)
        self.size = self.mechanisms[0].size if self.mechanisms else 0
        if not self.mechanisms or any(one.size != self.size for one in self.mechanisms):
            raise RefusedInput(
                "budget by type: all types must draw from one table, and they do not; make them from one"
            )
        known = self.types.dtype.kind in "iu" and self.types.shape == (self.size,)
        if not known or self.types.min() < 0 or self.types.max() >= len(self.mechanisms):
            raise RefusedInput(
                f"budget by type: the map must give each of {self.size} rows a type in [0, {len(self.mechanisms)}), "
                f"got shape {self.types.shape} of {self.types.dtype}; map every row, unknown and padding too"
            )
        used = [self.mechanisms[i] for i in np.unique(self.types)]
        for one in used:
            check_claims(one)
        self._private = all(one.guarantee.is_private for one in used)
        self._slack = max(one.probability_slack for one in used)
        self._certificate = self._whole([one.certificate for one in used])

    def _whole(self, each: list[Certificate]) -> Certificate:
        if len(each) == 1:
            return each[0]
        if all(one.bounded_range for one in each):
            return Certificate(max(one.epsilon_range for one in each), bounded_range=True)
        if self.size > _LARGEST_ENUMERATED:
            raise RefusedInput(
                f"budget by type: laws that are not of bounded range are certified together by enumeration, over at "
                f"most {_LARGEST_ENUMERATED} rows, got {self.size}; use the exponential mechanism, or one type"
            )
        return Certificate(math.inf, self._enumerated())

    def _enumerated(self) -> float:
        import numpy as np

        law = self.probabilities(np.arange(self.size))
        high, low = law.max(0), law.min(0)
        if (high[low == 0] > 0).any():
            return math.inf
        seen = high > 0
        return float(np.log(high[seen] / low[seen]).max()) + 2 * self._slack  # either probability may be off

    @property
    def certificate(self) -> Certificate:
        return self._certificate

    @property
    def guarantee(self) -> Guarantee:
        epsilon = self._certificate.epsilon
        if not self._private or not math.isfinite(epsilon):
            reason = "a type's law has no finite epsilon"
            return Guarantee.none(reason, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL)
        proof = self.mechanisms[0].guarantee.proof
        return Guarantee(Kind.PURE, epsilon, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL, proof=proof)

    def event(self) -> DpEvent:
        return pure_event(self._certificate.epsilon) if self.guarantee.is_private else none_event()

    def sample_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        import numpy as np

        self.need_ids(ids)
        drawn = np.empty(ids.shape, dtype=np.int64)
        for i, mechanism in enumerate(self.mechanisms):
            mine = self.types[ids] == i
            if mine.any():
                drawn[mine] = drawn_by(mechanism, ids[mine])
        return drawn

    def probabilities(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        import numpy as np

        self.need_ids(ids)
        rows = np.empty((len(ids), self.size))
        for i, mechanism in enumerate(self.mechanisms):
            mine = self.types[ids] == i
            if mine.any():
                rows[mine] = mechanism.probabilities(ids[mine])
        return rows

    @property
    def probability_slack(self) -> float:
        return self._slack

    def parameters(self) -> Mapping[str, Any]:
        import hashlib

        return {
            "types": [{"mechanism": one.name, "version": one.version, **one.parameters()} for one in self.mechanisms],
            "map": hashlib.sha256(self.types.astype("<i8").tobytes()).hexdigest(),
        }

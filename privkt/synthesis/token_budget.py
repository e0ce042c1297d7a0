"""How a document's budget is shared among its tokens: by position, by a public type, or evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from privkt.contracts.tokens import TokenMechanism
from privkt.privacy import RefusedInput, document_cost

#: Makes a token mechanism of a nominal epsilon, over one fixed table.
Maker = Callable[[float], TokenMechanism]
_CLOSE = 0.98  # of the budget; a table costs seconds to certify, and a closer search would certify many


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

"""How useful a private token can be at best, whatever mechanism draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from privkt.privacy.errors import RefusedInput


def utility_ceiling(epsilon: float, groups: int) -> float:
    """The most that the least lucky group of inputs can count on: that the output lies in the input's own group.

    For any mechanism that is `epsilon`-DP between any two tokens, and any way to part the tokens into `groups`: if
    every input's output stays in its group with probability at least a, then a <= e^epsilon / (e^epsilon + groups - 1).
    One group a token says how often the very token can survive.
    Units: `epsilon` is the exact epsilon of one token, nats; the bound is for the minimum over groups, and a mean over
        a corpus may lie above it.
    Edge cases: one group is always met; an infinite epsilon has no ceiling.
    Raises: RefusedInput, for an epsilon below 0 or no group.
    Proof: each of the other groups is hit from this input with at least e^-epsilon a; all of it adds up to 1 at most.
    """
    if not epsilon >= 0 or groups < 1:
        raise RefusedInput(
            f"utility_ceiling: epsilon must be >= 0 and groups at least 1, got {epsilon:g} and {groups}; correct them"
        )
    return 1 / (1 + (groups - 1) * math.exp(-epsilon))


def guessing_ceiling(epsilon: float, prior: Sequence[float]) -> float:
    """The most often that any attacker names a token right, seeing the output of any `epsilon`-DP draw.

    `prior`: how often each token is the input; the ceiling is the mean over it, and some law reaches it.
    Units: `epsilon` is the exact epsilon of one token, nats.
    Edge cases: epsilon 0 leaves the likeliest token's share, an infinite epsilon 1; a uniform prior gives
        `utility_ceiling` of one group a token.
    Raises: RefusedInput, for an epsilon below 0 or a prior that does not sum to 1.
    Proof: let s_x be how often token x is named when it is the input. Naming x has probability e^-epsilon s_x at least
        from any other input, so s_x + e^-epsilon (sum of the others) <= 1 for every x. The mean of s under the prior is
        then largest for m tokens named alike and the rest never: (share of the m likeliest) * utility_ceiling(epsilon,
        m), where m need not be looked for between whole numbers, since the bound is monotone there.
    """
    if not prior or min(prior) < 0 or not math.isclose(math.fsum(prior), 1, abs_tol=1e-6):
        raise RefusedInput("guessing_ceiling: a prior must be shares >= 0 that sum to 1, got others; divide by the sum")
    best = share = 0.0
    for m, weight in enumerate(sorted(prior, reverse=True), 1):
        share += weight
        best = max(best, share * utility_ceiling(epsilon, m))
    return min(1.0, best)

"""How useful a private token can be at best, whatever mechanism draws it."""

from __future__ import annotations

import math

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

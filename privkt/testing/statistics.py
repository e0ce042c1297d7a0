"""Chi-square with a stated false-alarm rate, and divergences of enumerated distributions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

FALSE_ALARM = 1e-6
# The chi-square tail is too light for skewed cells: with at least 50 expected draws in each, the chance of a nominal
# p below 1e-7 is at most 7.6e-7 (exact Poisson tail of the worst case, two cells).
CUT_OFF = 1e-7
_LEAST = 50


def chi_square_p(outputs: Iterable[Hashable], expected: Mapping[Hashable, float]) -> float:
    """The p-value of draws against probabilities; what `expected` leaves out is one cell of its own.

    Edge cases: cells of fewer than 50 expected draws are pooled; an output of probability 0 gives 0; a single
        cell gives 1.
    """
    from scipy.stats import chi2

    counts = Counter(outputs)
    draws = counts.total()
    listed = math.fsum(expected.values())
    rest = max(0.0, 1 - listed)
    cells = [(counts.get(output, 0), draws * p) for output, p in expected.items()]
    strangers = draws - sum(seen for seen, _ in cells)
    if strangers and rest * draws < 1e-9:
        return 0.0
    if any(seen and not mean for seen, mean in cells):
        return 0.0
    cells.append((strangers, rest * draws))
    large = [cell for cell in cells if cell[1] >= _LEAST]
    small = [cell for cell in cells if cell[1] < _LEAST]
    if small:
        pooled = (sum(seen for seen, _ in small), math.fsum(mean for _, mean in small))
        if pooled[1] >= _LEAST:
            large.append(pooled)
        elif large:
            least = min(range(len(large)), key=lambda i: large[i][1])
            large[least] = (large[least][0] + pooled[0], large[least][1] + pooled[1])
        else:
            large.append(pooled)
    if len(large) < 2:
        return 1.0
    statistic = math.fsum((seen - mean) ** 2 / mean for seen, mean in large)
    return float(chi2.sf(statistic, len(large) - 1))


def largest_log_ratio(p: Mapping[Hashable, float], q: Mapping[Hashable, float]) -> float:
    """max ln p(y)/q(y) over y with p(y) > 0; infinity where q(y) is 0."""
    return max(
        (math.log(mass) - math.log(q[y]) if q.get(y, 0.0) > 0 else math.inf for y, mass in p.items() if mass > 0),
        default=-math.inf,
    )


def hockey_stick(p: Mapping[Hashable, float], q: Mapping[Hashable, float], epsilon: float) -> float:
    """The delta of p against q at epsilon: sum of max(0, p - e^epsilon q)."""
    factor = math.exp(epsilon)
    return math.fsum(max(0.0, mass - factor * q.get(y, 0.0)) for y, mass in p.items())


def renyi(p: Mapping[Hashable, float], q: Mapping[Hashable, float], order: float) -> float:
    """The Renyi divergence of p from q at an order above 1."""
    if any(mass > 0 and not q.get(y, 0.0) for y, mass in p.items()):
        return math.inf
    logs = [order * math.log(mass) - (order - 1) * math.log(q[y]) for y, mass in p.items() if mass > 0]
    top = max(logs)
    return (top + math.log(math.fsum(math.exp(value - top) for value in logs))) / (order - 1)

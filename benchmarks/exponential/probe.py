"""Whether what is drawn follows the law that is stated: a few utilities, one head and its tail, and a small table.

**Utilities.** Eight of them; chi-square against the exact law. **Tail.** One candidate of utility 1 and very many of
utility 0, the epsilon such that 30 of the choices should fall on any of the many: none, or far more, is a law whose
tail is lost, as that of noise made from uniform numbers of too few bits. **Table.** For those who take no utilities:
32 words on a line, drawn for the first, against the law of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privkt.testing.statistics import CUT_OFF, chi_square_p

from .cases import Case, World
from .contenders import Contender

UTILITIES = tuple(x / 127 for x in (127, 127, 101, 64, 30, 0, 0, 0))
EPSILON = 6.0
EXPECTED = 30.0
LEAST, MOST = 5, 65  # of a Poisson number with mean 30: outside with probability below 1e-6
LINE = (0.0, 127.0, *range(46, 61), *range(92, 122, 2))


def exact_law(weights: Sequence[float], law: str) -> list[float]:
    """Probabilities of candidates of these weights, the largest 1, by the exponential or the permute-and-flip law."""
    if law != "permute-and-flip":
        total = math.fsum(weights)
        return [weight / total for weight in weights]
    found = []
    for place, weight in enumerate(weights):
        # the mean of 1 / (1 + how many of the others would be kept) is the integral of their generating function
        kept = np.polynomial.Polynomial([1.0])
        for other in (*weights[:place], *weights[place + 1 :]):
            kept *= np.polynomial.Polynomial([1 - other, other])
        found.append(weight * float(kept.integ()(1.0)))
    return found


def tail_share(gap: float, tails: int, law: str) -> float:
    """The probability of any of `tails` candidates of weight exp(-gap) beside one of weight 1."""
    weight = math.exp(-gap)
    if law != "permute-and-flip":
        return tails * weight / (1 + tails * weight)
    head = -math.expm1((tails + 1) * math.log1p(-weight)) / ((tails + 1) * weight)
    return 1 - head


def _gap(share: float, tails: int, law: str) -> float:
    low, high = 0.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail_share(middle, tails, law) > share else (low, middle)
    return low


def probe_law(kind: type[Contender], folder: Path, quick: bool = False) -> dict[str, Any]:
    """The probe of utilities, or of a table for those who take none."""
    if kind.stated == "none":
        return {"absent": "nothing is drawn"}
    if kind.stated.startswith("the nearest"):
        return {"absent": "no law in closed form is stated"}
    choices = kind.choices // 20 if quick else kind.choices
    choose = kind.chooser(UTILITIES, EPSILON)
    if choose is None:
        return {"by": "table", **_table(kind, folder, choices)}
    weights = [math.exp(EPSILON / 2 * (utility - 1)) for utility in UTILITIES]
    return {"by": "utilities", **_compared(choose(choices), exact_law(weights, kind.stated))}


def _compared(drawn: Any, expected: Sequence[float]) -> dict[str, Any]:
    p = chi_square_p(np.asarray(drawn).tolist(), dict(enumerate(expected)))
    return {"choices": len(drawn), "p": float(f"{p:.3g}"), "holds": p >= CUT_OFF}


def probe_tail(kind: type[Contender], quick: bool = False) -> dict[str, Any]:
    """The probe of one head and its tail."""
    if not kind.tail_choices:
        return {"absent": "takes too long"}
    if kind.chooser(UTILITIES, EPSILON) is None:
        return {"absent": "takes no utilities"}
    choices, tails = (100, 1 << 10) if quick else (kind.tail_choices, kind.tails)
    gap = _gap(EXPECTED / choices, tails, kind.stated)
    choose = kind.chooser((1.0, *[0.0] * tails), 2 * gap)
    assert choose is not None
    hits = int((np.asarray(choose(choices)) != 0).sum())
    about = {"choices": choices, "tails": tails, "gap": round(gap, 2)}
    return {**about, "hits": hits, "expected": EXPECTED, "holds": LEAST <= hits <= MOST}


def _table(kind: type[Contender], folder: Path, choices: int) -> dict[str, Any]:
    case = Case("a line", len(LINE), 1, epsilon=kind.probe_epsilon)
    world = World(case, torch.tensor(LINE)[:, None], folder)
    kind.prepare(world)
    made = kind(world)
    distances = [min(place, made.radius(world)) for place in LINE]
    expected = exact_law([math.exp(-world.rate * distance) for distance in distances], kind.stated)
    return _compared(_drawn(made, choices), expected)


def _drawn(made: Contender, choices: int) -> list[int]:
    return [int(word) for word in made.draw(made.inputs(torch.zeros(choices, dtype=torch.int64)))]

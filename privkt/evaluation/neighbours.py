"""Which public inputs an audit tells apart: those that lose most, as far as that can be known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privkt.contracts import Mechanism
from privkt.contracts.tokens import TokenMechanism
from privkt.evaluation.law import Extremes, Floats, likelihood_order, read_law
from privkt.privacy import Neighbouring, RefusedInput

_LOOKED_AT = 32  # pairs whose laws are compared whole
_SIGMAS = 3.0
_SWEEPS = 4


def word_pairs(
    mechanism: TokenMechanism,
    number: int,
    *,
    samples: int,
    vectors: NDArray[np.floating] | None = None,
    extremes: Extremes | None = None,
    seed: int = 0,
) -> list[tuple[int, int]]:
    """Pairs of words that so many draws can best tell apart.

    By the law where it is known: the inputs that make some output likeliest and unlikeliest, those first whose
    difference shows in `samples` draws. Without one: far pairs of words, and a near one, by `vectors`.
    """
    if mechanism.size < 2:
        raise RefusedInput("audit: a vocabulary must have two words to tell apart, got one; take a larger one")
    if not mechanism.has_law:
        if vectors is None:
            raise RefusedInput(f"{mechanism.name}: its law is not known, so pairs are chosen by vectors; give them")
        return _far_and_near(np.asarray(vectors, dtype=np.float64), number, seed)
    if extremes is None:
        extremes = Extremes(mechanism.size)
        read_law(mechanism, [extremes])
    found: dict[tuple[int, int], float] = {}
    for y in np.argsort(-_foreseen(extremes.highest, extremes.lowest, samples), kind="stable"):
        pair = int(extremes.likeliest[y]), int(extremes.unlikeliest[y])
        if pair[0] != pair[1] and pair not in found and pair[::-1] not in found:
            p, q = mechanism.probabilities(np.asarray(pair))
            found[pair] = _shown(p, q, samples)
        if len(found) >= _LOOKED_AT:
            break
    best = sorted(found, key=lambda pair: -found[pair])[:number]
    return best or [(0, 1)]  # all words alike: any pair is the worst one


def example_neighbours(mechanism: Mechanism[Any, Any]) -> list[tuple[Any, Any]]:
    """Two inputs as far apart as neighbours can be, from a mechanism's public parameters.

    Known are `labels`; `sensitivity` of a count; `size` and `clip` of a vector.
    Raises: RefusedInput, for other mechanisms: their inputs must be named.
    """
    known = mechanism.parameters()
    if "labels" in known:
        return [(known["labels"][0], known["labels"][1])]
    if "sensitivity" in known:
        low = known.get("lower") or 0
        return [(low, low + known["sensitivity"])]
    if "size" in known and "clip" in known:
        zeros, edge = [0.0] * known["size"], [float(known["clip"])] + [0.0] * (known["size"] - 1)
        far = mechanism.guarantee.neighbouring in (Neighbouring.REPLACE_ONE, Neighbouring.LOCAL)
        return [([-edge[0], *edge[1:]] if far else zeros, edge)]
    raise RefusedInput(
        f"{mechanism.name}: which inputs are neighbours cannot be told from its parameters; name two with "
        "--values '[X, Y]'"
    )


def _foreseen(p: Floats, q: Floats, samples: int) -> Floats:
    """About the bound that counting an event of these probabilities will give."""
    half = samples / 2
    low = p - _SIGMAS * np.sqrt(p / half)
    high = q + _SIGMAS * np.sqrt(q / half) + _SIGMAS**2 / 2 / half
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(low > 0, np.log(low / high), -np.inf)


def _shown(p: Floats, q: Floats, samples: int) -> float:
    """The best event's foreseen bound, in the better direction."""
    best = -np.inf
    for one, other in ((p, q), (q, p)):
        order = likelihood_order(one, other)
        best = max(best, float(_foreseen(np.cumsum(one[order]), np.cumsum(other[order]), samples).max()))
    return best


def _far_and_near(vectors: Floats, number: int, seed: int) -> list[tuple[int, int]]:
    generator = np.random.default_rng(seed)
    found: dict[tuple[int, int], None] = {}
    for _ in range(_SWEEPS * number):
        x = int(generator.integers(len(vectors)))
        y = _farthest(vectors, x)
        for _ in range(_SWEEPS):
            x, y = y, _farthest(vectors, y)
        if x != y:
            found[(min(x, y), max(x, y))] = None
        if len(found) >= max(1, number - 1):
            break
    x = int(generator.integers(len(vectors)))
    squares = _squares(vectors, x)
    squares[x] = np.inf
    y = int(squares.argmin())
    found[(min(x, y), max(x, y))] = None
    return list(found)[: max(number, 2)]


def _squares(vectors: Floats, word: int) -> Floats:
    return np.asarray(((vectors - vectors[word]) ** 2).sum(axis=1), dtype=np.float64)


def _farthest(vectors: Floats, word: int) -> int:
    return int(_squares(vectors, word).argmax())

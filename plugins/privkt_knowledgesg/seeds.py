"""What may stand in a prompt that asks for instructions: accepted by where it comes from, never by what it says.

There is no comparison with private text here, nor could there be: a refusal would tell whether a text is in the data.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from privkt.contracts import Rows
from privkt.privacy import RefusedInput
from privkt_knowledgesg.pairs import Pair


class Origin(StrEnum):
    """Where a seed comes from; the value is its name in a config. A private data set is none of them."""

    PUBLIC = "public"
    HEADER = "header"
    OWN = "own"


@dataclass(frozen=True)
class Seed:
    """A pair with its origin: a declared public source, or what the released adapter wrote before."""

    pair: Pair
    origin: Origin


def public_seeds(rows: Rows, response: str | None) -> tuple[Seed, ...]:
    """The rows of a source that the config declares public."""
    responses = rows.columns[response] if response is not None else ("",) * len(rows)
    return tuple(
        Seed(Pair(q.strip(), r.strip()), Origin.PUBLIC) for q, r in zip(rows.text, responses, strict=True) if q.strip()
    )


def own_seeds(pairs: Iterable[Pair]) -> tuple[Seed, ...]:
    """What a model without private data, or a released one, wrote and the filters kept."""
    return tuple(Seed(pair, Origin.OWN) for pair in pairs)


class SeedPicker:
    """Which seeds the next prompt shows; origins take turns, in their configured order.

    Guarantee: only seeds with an origin are shown; the same seed of the generator gives the same choice.
    Raises: RefusedInput, for anything that does not say where it comes from.
    """

    def __init__(self, public: Sequence[Seed], origins: Sequence[Origin], shots: int, seed: int) -> None:
        _need_origin(public)
        self._public, self._origins, self._shots = tuple(public), tuple(origins), shots
        self._random, self._turn = random.Random(seed), 0

    def pick(self, own: Sequence[Seed]) -> list[Pair]:
        """The pairs of the next prompt; none of them is the bare header. Without own ones yet, their turn is bare."""
        _need_origin(own)
        origin = self._origins[self._turn % len(self._origins)]
        self._turn += 1
        pool: Sequence[Seed] = {Origin.PUBLIC: self._public, Origin.OWN: own}.get(origin, ())
        return [seed.pair for seed in self._random.sample(list(pool), min(self._shots, len(pool)))]


def _need_origin(seeds: Sequence[Seed]) -> None:
    if not all(isinstance(seed, Seed) and isinstance(seed.origin, Origin) for seed in seeds):
        raise RefusedInput(
            "seeds: each must say that it comes from a public source or from a released model, and one is plain text; "
            "make it with public_seeds or own_seeds (private rows have no such origin)"
        )

"""A public table of vectors as int8, and the exact squared distances and integer levels that token laws are made of.

The definitions are those of `privkt.kernels.exponential`: the same bytes, the same levels.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkt.privacy import RefusedInput

if TYPE_CHECKING:
    from privkt.kernels import ByteTable as NativeTable
    from privkt.kernels import Neighbours, TableIndex

Ids = NDArray[np.int64]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_LEVEL = 4095  # a table of int32 weights fits the first cache
_LARGEST, _MOST_WIDTH, _MOST_SHIFTED, _MOST_UP = 127, 1 << 14, (1 << 30) - 1, 16
_EXACT_IN_FLOAT32 = (1 << 24) // _LARGEST**2
_CELLS = 1 << 22  # of a block of queries against the whole vocabulary
_CACHED_CELLS = 1 << 26
_KEPT_TABLES = 2


@dataclass(frozen=True)
class Levels:
    """How a squared distance x becomes a level: min(root(x / 2^shift), last), in integers, rounded down.

    Edge cases: a negative shift multiplies; without `root` the level is linear in the square.
    """

    last: int
    shift: int = 0
    root: bool = True

    def of(self, squares: Integers) -> Integers:
        up, down = max(0, -self.shift), max(0, self.shift)
        shifted = (np.minimum(squares, _MOST_SHIFTED >> up) << up) >> down
        if self.root:  # below 2^30 a float64 root rounds to no other integer part
            shifted = np.sqrt(shifted.astype(np.float64)).astype(np.int64)
        return np.minimum(shifted, self.last)

    def least_square(self, level: int) -> int:
        """The smallest x that has this level."""
        floor = level * level if self.root else level
        return floor << self.shift if self.shift >= 0 else -(-floor >> -self.shift)


@dataclass(frozen=True, eq=False)
class ByteTable:
    """Public vectors in int8. Shapes: rows [V, D]. Units: `scale` steps of int8 are one unit of the vectors."""

    rows: NDArray[np.int8]
    scale: float

    @property
    def size(self) -> int:
        return len(self.rows)

    @cached_property
    def sqnorms(self) -> Integers:
        return np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.int64)

    @cached_property
    def _factors(self) -> NDArray[np.floating]:
        # every partial sum is an integer below 2^24, respectively 2^53: no product rounds, in any order
        return self.rows.astype(np.float32 if self.rows.shape[1] <= _EXACT_IN_FLOAT32 else np.float64)

    @cached_property
    def digest(self) -> str:
        """What the table is known by on cards: it is public."""
        return hashlib.sha256(repr((self.rows.shape, self.scale)).encode() + self.rows.tobytes()).hexdigest()[:16]

    def squares(self, ids: Ids) -> Integers:
        """|row[i] - row[j]|^2, exactly. Shapes: ids [n]; result [n, V]."""
        products = (self._factors[ids] @ self._factors.T).astype(np.int64)
        products *= -2
        products += self.sqnorms[ids, None]
        products += self.sqnorms[None, :]
        return products

    def blocks(self) -> Iterator[Ids]:
        """All ids, so many at a time that a block against the vocabulary stays small."""
        step = max(1, _CELLS // self.size)
        for start in range(0, self.size, step):
            yield np.arange(start, min(start + step, self.size))

    @cached_property
    def extremes(self) -> tuple[int, int]:
        """(least, largest) squared distance of two words that differ; zeros where none do. Both are exact."""
        near = self.index.near.distances
        found = near[near > 0]
        least = int(found.min()) if len(found) else _MOST_SHIFTED
        crowded = (near[:, -1] == 0).nonzero()[:, 0].numpy()
        if len(crowded) and near.shape[1] < self.size:  # as many equal words as a list holds: their next is not in it
            _, firsts = np.unique(self.rows[crowded], axis=0, return_index=True)
            for word in crowded[firsts]:
                squares = self.squares(np.array([word]))
                least = min(least, int(squares[squares > 0].min(initial=_MOST_SHIFTED)))
        largest = int(self.index.farthest.max())
        return (least, largest) if largest else (0, 0)

    @cached_property
    def index(self) -> TableIndex:
        """Each word's nearest words and farthest distance: one pass over all pairs of words."""
        from privkt import kernels

        return kernels.table_index(self.native)

    @property
    def indexed(self) -> bool:
        """Whether that pass was made."""
        return "index" in self.__dict__

    @property
    def neighbours(self) -> Neighbours:
        """The nearest words of each word, for draws by rejection."""
        return self.index.near

    @cached_property
    def native(self) -> NativeTable:
        """The same table as the kernels take it."""
        import torch

        from privkt import kernels

        sqnorms = torch.from_numpy(self.sqnorms.astype(np.int32))
        return kernels.ByteTable(torch.from_numpy(np.ascontiguousarray(self.rows)), sqnorms, self.scale)


def byte_table(subject: str, table: ArrayLike, *, cosine: bool = False) -> ByteTable:
    """The int8 table of a public matrix [V, D]; with `cosine` rows are brought to length 1 first.

    Guarantee: none is needed: the rounding picks another public utility and costs nothing.
    Edge cases: rows of zeros stay; huge values make all others small; a single word is allowed.
    Raises: RefusedInput, for another shape, a value that is not finite, or V above 2^31.
    """
    vectors = np.asarray(table)
    rows, width = vectors.shape if vectors.ndim == 2 else (0, 0)
    if vectors.dtype.kind not in "fiu" or not 0 < rows <= 1 << 31 or not 0 < width <= _MOST_WIDTH:
        raise RefusedInput(
            f"{subject}: the table must be numbers of shape [words, width], width at most {_MOST_WIDTH}, got "
            f"{vectors.dtype} {list(vectors.shape)}; give one public vector a word"
        )
    if not np.isfinite(vectors).all():
        raise RefusedInput(
            f"{subject}: the table must be finite, got NaN or infinity in it; mend or leave out those words"
        )
    return _shared(_quantised(vectors.astype(np.float64), cosine))


def _quantised(vectors: Floats, cosine: bool) -> ByteTable:
    if cosine:
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        vectors = vectors / np.where(largest > 0, largest, 1.0)  # squares of huge values would overflow
        norms = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
        vectors = vectors / np.where(norms > 0, norms, 1.0)
    largest_value = float(np.abs(vectors).max())
    # what is not normal in double precision is nothing beside 1: 127 / it would overflow
    scale = _LARGEST / largest_value if largest_value > np.finfo(np.float64).tiny * _LARGEST else 1.0
    return ByteTable(np.clip(np.rint(vectors * scale), -_LARGEST, _LARGEST).astype(np.int8), scale)


_known: OrderedDict[str, ByteTable] = OrderedDict()


def _shared(table: ByteTable) -> ByteTable:
    """One object for equal tables, the last few: its extremes and neighbours are worked out once for many epsilons."""
    kept = _known.pop(table.digest, table)
    _known[table.digest] = kept
    while len(_known) > _KEPT_TABLES:
        _known.popitem(last=False)
    return kept


class LevelledTable:
    """A table with its levels: what a law looks its weights up by. Small ones are worked out once and kept."""

    def __init__(self, table: ByteTable, levels: Levels) -> None:
        self.table, self.levels, self.size = table, levels, table.size
        self._kept: NDArray[np.int16] | None = None
        self.native: Any = None  # what native_law keeps with the table

    def rows(self, ids: Ids) -> Integers:
        """Shapes: ids [n]; result [n, V]."""
        if self._kept is None and self.size**2 <= _CACHED_CELLS:
            self._kept = np.concatenate([self._made(block).astype(np.int16) for block in self.table.blocks()])
        return self._made(ids) if self._kept is None else self._kept[ids].astype(np.int64)

    def _made(self, ids: Ids) -> Integers:
        return self.levels.of(self.table.squares(ids))


def levels_up_to(square: int, *, root: bool = True) -> Levels:
    """Levels whose last is that of `square`, as fine as MOST_LEVEL allows."""
    shift = -_MOST_UP
    while True:
        level = int(Levels(1 << 40, shift, root).of(np.array([square]))[0])
        if level <= MOST_LEVEL and (square << max(0, -shift)) <= _MOST_SHIFTED:
            return Levels(level, shift, root)
        shift += 1

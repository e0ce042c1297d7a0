"""A public vocabulary: every text becomes rows of one table of vectors, and rows become text again."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from privkt.privacy import RefusedInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNKNOWN_TEXT = "<unk>"


class Vocabulary(ABC):
    """Ordinary tokens 0 to size - 3, then the row of unknown tokens, then the row that pads.

    Shapes: vectors: [size, D] float32, finite.
    Guarantee: `encode` maps any text whatever into [0, size), by nothing but the text and public things; so nothing can
        pass a token mechanism verbatim, and nothing is left out of it because it is strange. `decode` sees ids alone.
    Edge cases: spaces and what a tokenizer's normaliser drops make no token; half of a surrogate pair is read as
        U+FFFD; an empty text has no ids. Both extra rows are inputs and outputs of a mechanism like any other.
        Their vectors: the mean direction for unknown, its opposite for padding, both of the rows' median length.
    """

    def __init__(self, vectors: NDArray[np.float32], subject: str) -> None:
        self.vectors = _with_extra_rows(vectors, subject)
        self._identity: str | None = None

    @property
    def size(self) -> int:
        """The number of rows, V."""
        return len(self.vectors)

    @property
    def unknown(self) -> int:
        """The row of whatever has no own row."""
        return self.size - 2

    @property
    def padding(self) -> int:
        """The row that fills a document up to its public length."""
        return self.size - 1

    @property
    def identity(self) -> str:
        """SHA-256 of mapping and vectors, for cards: equal identities map and measure alike."""
        if self._identity is None:
            state = hashlib.sha256()
            for part in self._mapping():
                state.update(len(part).to_bytes(8, "big"))
                state.update(part)
            state.update(repr(self.vectors.shape).encode())
            state.update(self.vectors.tobytes())
            self._identity = state.hexdigest()
        return self._identity

    def encode(self, text: str) -> NDArray[np.int64]:
        """The rows of a text, in order. Shapes: [n], n >= 0."""
        import numpy as np

        clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return np.asarray(self._rows(clean), dtype=np.int64)

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> str:
        """The text of rows: padding says nothing, unknown says `<unk>`.

        Raises: RefusedInput, for a row outside [0, size).
        """
        listed = [int(i) for i in ids]
        if any(not 0 <= i < self.size for i in listed):
            raise RefusedInput(f"vocabulary: rows must lie in [0, {self.size}), got others; decode rows of this one")
        return self._text([i for i in listed if i != self.padding])

    @abstractmethod
    def _rows(self, text: str) -> Sequence[int]:
        """The rows of a text of whole characters."""

    @abstractmethod
    def _text(self, rows: list[int]) -> str:
        """The text of rows, none of them padding."""

    @abstractmethod
    def _mapping(self) -> Iterable[bytes]:
        """Everything that decides `encode` and `decode`."""


def _with_extra_rows(vectors: NDArray[np.float32], subject: str) -> NDArray[np.float32]:
    import numpy as np

    table = np.asarray(vectors)
    if table.ndim != 2 or table.dtype.kind != "f" or min(table.shape) < 1:
        raise RefusedInput(
            f"{subject}: vectors must be a table of numbers with a row a token, got shape {table.shape} of "
            f"{table.dtype}; give the model's input embeddings, or one vector a word"
        )
    table = np.ascontiguousarray(table, dtype=np.float32)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise RefusedInput(
            f"{subject}: vectors must be finite, and that of row {row} is not; take another file, or drop the row"
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", table, table, dtype=np.float64))
    typical = float(np.median(lengths)) or 1.0
    mean = table.mean(0, dtype=np.float64)
    if np.linalg.norm(mean) <= 1e-6 * typical:  # centred vectors have no direction in common
        mean = np.eye(1, table.shape[1])[0]
    mean *= typical / np.linalg.norm(mean)
    return np.concatenate([table, np.stack([mean, -mean]).astype(np.float32)])

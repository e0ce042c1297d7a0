"""A vocabulary of words with vectors, as GloVe and word2vec publish them in text files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.privacy import RefusedInput
from privkt.synthesis.vocabulary import UNKNOWN_TEXT, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORDS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|\S")
_PIECES = re.compile(r"[^\W\d_]+|\d|\S")


class WordVocabulary(Vocabulary):
    """One row a word. The list must be public: never made of the private texts.

    A word is looked up as it stands, then in lower case, then by its pieces (the parts of a compound, the digits of a
    number); what is still missing is unknown.
    Raises: RefusedInput, for empty or repeated words, or another number of words than of vectors.
    """

    def __init__(self, words: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._words = tuple(words)
        self._row_of = {word: row for row, word in enumerate(self._words)}
        if len(self._words) != len(vectors):
            raise RefusedInput(
                f"vocabulary: there must be one vector a word, got {len(vectors)} vectors for {len(self._words)} words"
            )
        if len(self._row_of) < len(self._words):
            row = next(i for i, word in enumerate(self._words) if self._row_of[word] != i)
            raise RefusedInput(f"vocabulary: words must differ, and word {row + 1} comes twice; drop one of the two")
        if any(not word or word != word.strip() for word in self._words):
            raise RefusedInput("vocabulary: a word must be text without spaces around it, and one is not; drop it")
        super().__init__(vectors, "vocabulary")

    @classmethod
    def from_file(cls, path: str | Path) -> WordVocabulary:
        """From text lines of a word and its numbers, after a line of two counts if there is one.

        Raises: RefusedInput, naming the line.
        """
        import numpy as np

        path = Path(path)
        if not path.is_file():
            raise RefusedInput(f"vectors: no file at {path}; give a text file with a word and its numbers a line")
        words: list[str] = []
        rows: list[NDArray[np.float32]] = []
        width = 0
        try:
            for number, line in _lines(path):
                if number == 1 and len(line.split()) == 2 and all(part.isdigit() for part in line.split()):
                    continue  # word2vec: how many, how wide
                width = width or len(line.split(" ")) - 1
                parts = line.rsplit(" ", width)
                vector = _numbers(parts[1:], width)
                if vector is None or not parts[0]:
                    raise RefusedInput(
                        f"vectors: line {number} must be a word and {width} numbers, and is not; mend the file"
                    )
                words.append(parts[0])
                rows.append(vector)
        except UnicodeDecodeError:
            raise RefusedInput(
                f"vectors: line {len(words) + 1} or a later one is not UTF-8; convert the file"
            ) from None
        if not rows:
            raise RefusedInput("vectors: the file must hold at least one word, got none; take another")
        return cls(words, np.stack(rows))

    def _rows(self, text: str) -> list[int]:
        return [row for word in _WORDS.findall(text) for row in self._of_word(word)]

    def _of_word(self, word: str) -> list[int]:
        for spelling in (word, word.lower()):
            if spelling in self._row_of:
                return [self._row_of[spelling]]
        pieces = _PIECES.findall(word)
        if len(pieces) < 2:
            return [self.unknown]
        found = [self._row_of.get(p, self._row_of.get(p.lower(), self.unknown)) for p in pieces]
        # A word of unknown pieces alone is one unknown word.
        return found if any(row != self.unknown for row in found) else [self.unknown]

    def _text(self, rows: list[int]) -> str:
        return " ".join(UNKNOWN_TEXT if row == self.unknown else self._words[row] for row in rows)

    def _mapping(self) -> Iterable[bytes]:
        yield b"words 1"
        yield from (word.encode("utf-8", "surrogatepass") for word in self._words)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if kept := line.rstrip("\r\n ").lstrip("\ufeff"):
                yield number, kept


def _numbers(parts: list[str], width: int) -> NDArray[np.float32] | None:
    import numpy as np

    try:
        vector = np.asarray(parts, dtype=np.float32)
    except ValueError:
        return None
    return vector if width and len(vector) == width else None

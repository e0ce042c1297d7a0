"""How alike texts are: MinHash signatures, TF-IDF cosines and ROUGE-L, always of public or released texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from privkt.synthesis.filters import shingles
from privkt.synthesis.words import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PERMUTATIONS = 256
_PRIME = 4_294_967_311  # the first prime above 2^32: a hash of 32 bits times a factor of 31 bits fits 64 bits


class NearDuplicates:
    """Texts seen so far, as MinHash signatures of their word triples.

    Guarantee: the share of equal signature entries is an unbiased estimate of the Jaccard similarity J of the triples,
        with standard error sqrt(J (1 - J) / 256), at most 0.032; the same texts give the same answers in every process.
    Edge cases: a text without a word is like no other.
    References: Broder 1997, On the resemblance and containment of documents, section 3.
    """

    def __init__(self, similarity: float, seed: int = 0) -> None:
        import numpy as np

        draw = np.random.default_rng(seed)
        self._factors = draw.integers(1, 2**31, size=_PERMUTATIONS, dtype=np.uint64)
        self._offsets = draw.integers(0, 2**32, size=_PERMUTATIONS, dtype=np.uint64)
        self._similarity = similarity
        self._seen: NDArray[np.uint64] = np.empty((64, _PERMUTATIONS), dtype=np.uint64)
        self._count = 0

    def closest(self, text: str) -> float:
        """The estimated similarity to the most similar text seen, 0 if there is none."""
        return self._closest(self._signature(text))

    def is_new(self, text: str) -> bool:
        """Whether a text is less than `similarity` like every one seen; if so, it is seen from now on."""
        signature = self._signature(text)
        if self._closest(signature) >= self._similarity:
            return False
        self._put(signature)
        return True

    def see(self, text: str) -> None:
        """Counts a text as seen, whatever it is like."""
        self._put(self._signature(text))

    def _put(self, signature: NDArray[np.uint64]) -> None:
        import numpy as np

        if self._count == len(self._seen):
            self._seen = np.concatenate([self._seen, np.empty_like(self._seen)])
        self._seen[self._count] = signature
        self._count += 1

    def _closest(self, signature: NDArray[np.uint64]) -> float:
        if self._count == 0 or int(signature[0]) == _PRIME:
            return 0.0
        return float((self._seen[: self._count] == signature).mean(axis=1).max())

    def _signature(self, text: str) -> NDArray[np.uint64]:
        import numpy as np

        runs = shingles(text)
        if not runs:
            return np.full(_PERMUTATIONS, _PRIME, dtype=np.uint64)  # above every hash: nobody's minimum
        # Not Python's own hash, which differs between processes.
        hashes = np.array(
            [
                int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=4).digest(), "big")
                for run in sorted(runs)
            ],
            dtype=np.uint64,
        )
        smallest = (hashes[:, None] * self._factors + self._offsets) % np.uint64(_PRIME)
        return smallest.min(axis=0)


class TfidfNearness:
    """The largest TF-IDF cosine of a text to given ones; words, weights and texts are those given alone.

    Edge cases: without texts, or with none of their words in it, a text has 0.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        known = any(map(words, texts))
        self._vectorizer = TfidfVectorizer(analyzer=words) if known else None
        self._rows = self._vectorizer.fit_transform(texts) if self._vectorizer is not None else None

    def closest(self, texts: Sequence[str]) -> list[float]:
        """One number in [0, 1] a text."""
        if self._vectorizer is None or self._rows is None or not texts:
            return [0.0] * len(texts)
        found = self._vectorizer.transform(texts) @ self._rows.T
        return [min(1.0, float(value)) for value in found.max(axis=1).toarray().ravel()]


def rouge_l(one: str, other: str) -> float:
    """F1 of the longest common subsequence of words, case and punctuation removed, in [0, 1].

    Edge cases: two texts without a word are alike; with one they are not.
    References: Lin 2004, ROUGE, section 3; Hyyro 2004, Bit-parallel LCS-length computation revisited.
    """
    first, second = words(one), words(other)
    if not first or not second:
        return float(first == second)
    common = common_subsequence(first, second)
    return 2 * common / (len(first) + len(second))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, one pass over `second` with all of `first` in one integer."""
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << i)
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()

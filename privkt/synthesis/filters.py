"""Which texts are worth keeping: decoration off, long enough, not seen before. Rules are fixed in advance."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from privkt.contracts import LabelledText
from privkt.synthesis.words import SPACELESS, words

_SPECIAL = re.compile(r"<\|[^|>\n]{1,40}\|>|</?s>|<(?:pad|unk|eos|bos)>|\[(?:PAD|SEP|CLS|UNK|EOS)\]", re.I)
_LEADING = re.compile(r"^(?:[\s\-*#>•=~_]|\d{1,3}[.)]\s)+")
_TRAILING = re.compile(r"[\s\-*#>•=~_|\[({`]+$")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "„": "“"}


@dataclass(frozen=True)
class Validity:
    """When a text is long enough: `min_words` words, or `min_characters` letters in scripts without spaces."""

    min_words: int = 10
    min_characters: int = 20

    def fault(self, text: str) -> str | None:
        """Why a stripped text is not valid, or None."""
        if not text:
            return "empty"
        letters = [c for c in text if c.isalpha() or unicodedata.category(c) in ("Mn", "Mc")]
        if not letters:
            return "no letters"
        spaceless = sum(SPACELESS.match(c) is not None for c in letters)
        if 2 * spaceless > len(letters):
            return "too few characters" if len(letters) < self.min_characters else None
        spoken = [word for word in text.split() if any(c.isalnum() for c in word)]
        return "too few words" if len(spoken) < self.min_words else None


@dataclass(frozen=True)
class FilterReport:
    """How many texts came and stayed, and why the others did not: {reason: count}. Holds no text."""

    came: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: FilterReport) -> FilterReport:
        return FilterReport(
            self.came + other.came,
            self.kept + other.kept,
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {"came": self.came, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}


def strip_decoration(text: str) -> str:
    """The text without special tokens, list marks, quotes around it and separators at its ends.

    Edge cases: idempotent; quotes inside stay; a text of decoration alone becomes empty.
    """
    text = _SPECIAL.sub(" ", text)
    while True:
        before = text
        text = _TRAILING.sub("", _LEADING.sub("", text)).strip()
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1]
        if text == before:
            return text


def keep_valid(
    rows: Iterable[LabelledText],
    rule: Validity,
    *,
    near_duplicates: float | None = None,
    already: Iterable[str] = (),
) -> tuple[list[LabelledText], FilterReport]:
    """Stripped rows that are valid and were not seen before, in order, and a report of the others.

    `near_duplicates`: a Jaccard similarity of word triples from which on a text counts as seen; None: exact only.
    `already`: texts that were seen before the first row (demonstrations, never private text).
    """
    dropped: Counter[str] = Counter()
    stripped: list[LabelledText] = []
    seen = {_key(strip_decoration(text)) for text in already}
    came = 0
    for row in rows:
        came += 1
        text = strip_decoration(row.text)
        fault = rule.fault(text)
        key = _key(text)
        if fault is None and key in seen:
            fault = "exact duplicate"
        if fault is not None:
            dropped[fault] += 1
            continue
        seen.add(key)
        stripped.append(LabelledText(text, row.label))
    if near_duplicates is not None:
        unique = distinct([row.text for row in stripped], near_duplicates)
        dropped["near duplicate"] += len(stripped) - len(unique)
        stripped = [stripped[i] for i in unique]
    return stripped, FilterReport(came, len(stripped), {k: v for k, v in dropped.items() if v})


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def shingles(text: str, size: int = 3) -> frozenset[tuple[str, ...]]:
    """The runs of `size` words of a text, case and punctuation removed; a shorter text is one run."""
    found = words(text)
    if len(found) <= size:
        return frozenset([tuple(found)]) if found else frozenset()
    return frozenset(tuple(found[i : i + size]) for i in range(len(found) - size + 1))


def distinct(texts: Sequence[str], similarity: float) -> list[int]:
    """Indices of texts less than `similarity` alike (Jaccard of word triples) to every kept one before them.

    Exact, of texts that are all there; `privkt.synthesis.similarity.NearDuplicates` takes them as they are written.
    """
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: dict[int, int] = {}
    kept = []
    for i, text in enumerate(texts):
        runs = shingles(text)
        shared: Counter[int] = Counter(j for run in runs for j in holders.get(run, ()))
        if any(n >= similarity * (len(runs) + sizes[j] - n) for j, n in shared.items()):
            continue
        kept.append(i)
        sizes[i] = len(runs)
        for run in runs:
            holders[run].append(i)
    return kept

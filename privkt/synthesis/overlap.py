"""How far what was made repeats what is private: told to the data's owner afterwards, and used for nothing else.

It never filters, draws again, or stops a release: any of that would leak (docs/threat-model.md). Counts only, no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from privkt.synthesis.filters import shingles
from privkt.synthesis.words import words

LONG = 8
NEAR = 0.5


def overlap_report(made: Sequence[str], private: Sequence[str], canaries: Iterable[str] = ()) -> dict[str, float]:
    """Counts about texts that were made, against private ones.

    Units: `longest_common_words`: words in a row that both have; `share_with_8_common_words`: of the made texts;
        `exact_copies`, `near_copies` (Jaccard of word triples >= 0.5): made texts; `canaries_repeated` and
        `canaries_in_the_data`: canaries, in made and in private texts.
    Edge cases: nothing made, or nothing private, gives zeros; in scripts without spaces a letter is a word.
    """
    made_words = [words(text) for text in made]
    private_words = [words(text) for text in private]
    copies = {tuple(one) for one in private_words}
    long_runs = _runs(private_words, LONG)
    found = {
        "texts": float(len(made)),
        "longest_common_words": float(longest_common(made_words, private_words)),
        "share_with_8_common_words": _share(
            any(tuple(one[i : i + LONG]) in long_runs for i in range(len(one) - LONG + 1)) for one in made_words
        ),
        "exact_copies": float(sum(bool(one) and tuple(one) in copies for one in made_words)),
        "near_copies": float(_near(made, private)),
    }
    planted = [_plain(canary) for canary in canaries]
    if planted:
        text = " \n ".join(_plain(one) for one in made)
        found["canaries"] = float(len(planted))
        there = " \n ".join(_plain(one) for one in private)
        found["canaries_in_the_data"] = float(sum(f" {canary} " in f" {there} " for canary in planted))
        found["canaries_repeated"] = float(sum(f" {canary} " in f" {text} " for canary in planted))
    return found


def longest_common(made: Sequence[Sequence[str]], private: Sequence[Sequence[str]]) -> int:
    """The largest number of words in a row that some made and some private text share."""
    length = 0
    alive = [(row, start) for row, one in enumerate(made) for start in range(len(one))]
    while alive:
        runs = _runs(private, length + 1)
        # A run of n + 1 words begins where a run of n words began.
        alive = [
            (row, start)
            for row, start in alive
            if start + length < len(made[row]) and tuple(made[row][start : start + length + 1]) in runs
        ]
        length += bool(alive)
    return length


def _near(made: Sequence[str], private: Sequence[str]) -> int:
    holders: dict[tuple[str, ...], list[int]] = {}
    sizes = []
    for number, text in enumerate(private):
        runs = shingles(text)
        sizes.append(len(runs))
        for run in runs:
            holders.setdefault(run, []).append(number)
    near = 0
    for text in made:
        runs = shingles(text)
        shared: dict[int, int] = {}
        for run in runs:
            for number in holders.get(run, ()):
                shared[number] = shared.get(number, 0) + 1
        near += any(n >= NEAR * (len(runs) + sizes[number] - n) for number, n in shared.items())
    return near


def _runs(texts: Iterable[Sequence[str]], size: int) -> set[tuple[str, ...]]:
    return {tuple(one[i : i + size]) for one in texts for i in range(len(one) - size + 1)}


def _plain(text: str) -> str:
    return " ".join(words(text))


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0

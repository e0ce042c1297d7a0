"""Which numbered texts an answer keeps: "keep: 1, 3 and 5", "[1,3]", "None", "2-4", a verdict a line, or prose."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?<![\w.])#?(\d{1,4})(?:\s*(?:-|–|to|through)\s*#?(\d{1,4}))?(?![\w%]|\.\d)")
_MARK = re.compile(
    r"(?:keep(?:ing)?|kept|answer|ind(?:ex|ices|exes)|select(?:ed|ion)?|numbers?|chosen|good)\b"
    r"[^:\n\d\[]{0,40}[:：=]\**[ \t]*\n?",
    re.I,
)
_BRACKETS = re.compile(r"[\[({]\s*((?:\d{1,4}\s*(?:-|–|to)?\s*(?:,|;|and|&)?\s*)*)[\])}]", re.I)
_VERDICT = re.compile(
    r"^\W*(?:(?:text|sample|no\.?|number)\s*)?(\d{1,4})\s*[.):\]\-–=]*\s*\**\s*(keep|yes|kept|good|remove|drop|no|discard|reject|bad)\b",
    re.I | re.M,
)
# "1. [world] Ministers met ..." repeats the texts that are kept; numbers inside them mean nothing.
_REPEATED = re.compile(r"^\s*(\d{1,4})[.)]\s+(?=\D{2})(?=.*[^\W\d]{2})", re.M)
_KEEP_WORDS = frozenset({"keep", "yes", "kept", "good"})
_KEEP = re.compile(r"\b(?:keep(?:ing)?|kept|select(?:ed)?|choose|chosen|retain(?:ed)?)\b", re.I)
_DROP = re.compile(
    r"\b(?:remov(?:e|ed|ing)|drop(?:ped)?|discard(?:ed)?|exclud(?:e|ed|ing)|except|(?<=all )but|"
    r"but not|without|reject(?:ed)?|(?:do not|don't|not|never) keep)\b",
    re.I,
)
_CLAUSE_END = re.compile(r"\b(?:because|since|while|whereas|although|(?<!all )but|however)\b|[;\n]|\.(?=\s|$)", re.I)
_NONE = re.compile(
    r"\b(?:none|nothing|no (?:texts?|samples?|items?|one)|empty)\b|^\s*\[\s*\]\s*$|^\s*0\s*\.?\s*$", re.I
)
_ALL = re.compile(r"\b(?:all|every(?:thing| text| sample)?|each)\b", re.I)


def kept_positions(answer: str, count: int) -> tuple[int, ...] | None:
    """Zero-based positions of the texts that an answer keeps, of `count` numbered from 1; None if unreadable.

    Edge cases:
        "None", "[]", "0"               -> ()
        "all", "all but 2"              -> all of them, all but one
        "remove 2"                      -> the others
        numbers outside 1..count        -> ignored; None when nothing else is left
    """
    answer = answer.strip()
    if not answer:
        return None
    if verdicts := _VERDICT.findall(answer):
        return _positions((int(n) for n, word in verdicts if word.lower() in _KEEP_WORDS), count, empty=True)
    marks = [m for m in _MARK.finditer(answer) if not _DROP.search(answer[max(0, m.start() - 8) : m.end()])]
    if marks:
        answer = answer[marks[-1].end() :]
        answer = next((line for line in answer.splitlines() if line.strip()), "")
    elif repeated := _REPEATED.findall(answer):
        return _positions([int(number) for number in repeated], count)
    elif brackets := [found for found in _BRACKETS.findall(answer) if found.strip()]:
        # One list, the last; or single numbers, each in brackets of its own.
        lists = [found for found in brackets if len(_numbers(found)) > 1]
        return _positions(_numbers(lists[-1] if lists else ", ".join(brackets)), count)
    said = _clause(answer, _KEEP) or answer
    if dropped := _DROP.search(answer):
        kept = _KEEP.search(answer)
        if marks or kept is None or kept.start() >= dropped.start() or not _numbers(said[: _cut(said)]):
            return _complement(_numbers(_up_to_end(answer[dropped.end() :])), count)
    numbers = _numbers(said[: _cut(said)])
    if numbers:
        return _positions(numbers, count)
    if _NONE.search(said):
        return ()
    if _ALL.search(said):
        return tuple(range(count))
    return None


def _clause(text: str, start: re.Pattern[str]) -> str:
    """What stands after a word up to the end of its clause, or nothing."""
    found = start.search(text)
    return _up_to_end(text[found.end() :]) if found else ""


def _up_to_end(text: str) -> str:
    end = _CLAUSE_END.search(text)
    return text[: end.start()] if end else text


def _cut(text: str) -> int:
    found = _DROP.search(text)
    return found.start() if found else len(text)


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for first, last in _NUMBER.findall(text):
        low, high = int(first), int(last or first)
        numbers.extend(range(low, min(high, low + 9999) + 1))
    return numbers


def _positions(numbers: object, count: int, *, empty: bool = False) -> tuple[int, ...] | None:
    inside = tuple(sorted({n - 1 for n in numbers if 1 <= n <= count}))  # type: ignore[attr-defined]
    return inside if inside or empty else None


def _complement(numbers: list[int], count: int) -> tuple[int, ...] | None:
    dropped = _positions(numbers, count)
    return None if dropped is None else tuple(i for i in range(count) if i not in dropped)

"""Label names as a language model writes them, matched back to the labels that a config declares."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from privkt.synthesis.words import whole_word

_FRACTION = re.compile(r"^(\d+)\s*(?:/|out of|von|sur)\s*\d+$")


def normalised(text: str) -> str:
    """Case, width, ampersands, punctuation and spacing removed: "World.\\n-" and "world" are one."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("&", " and ")
    return " ".join(re.sub(r"[^\w\s]|_", " ", text).split())


def match_label(answer: str, names: Mapping[str, str]) -> str | None:
    """The label whose name an answer gives, or None when it gives none or several.

    `names` maps labels to their names; the label itself is understood too.
    Edge cases:
        "world.\\n-"                        -> world (decoration is no part of a name)
        "Label: **Science & Technology**"   -> science and technology
        "4/5", "4 out of 5"                 -> 4
        "positive or negative"              -> None (an echo of the choices decides nothing)
    """
    known = {normalised(name): label for label, name in names.items()}
    for label in names:
        known.setdefault(normalised(label), label)
    known.pop("", None)
    if fraction := _FRACTION.match(answer.strip().strip(".*").casefold()):
        return known.get(fraction.group(1))
    said = normalised(answer)
    if said in known:
        return known[said]
    found = set()
    # The longest name first: "science" inside "science and technology" is not a second answer.
    for name in sorted(known, key=len, reverse=True):
        said, times = re.subn(whole_word(name), "\0", said)
        if times:
            found.add(known[name])
    return found.pop() if len(found) == 1 else None


def leading_label(line: str, names: Mapping[str, str]) -> tuple[str, str] | None:
    """(label, what follows it) when a line begins with a label's name; None otherwise."""
    for name, label in sorted(
        ((name, label) for label, name in names.items()), key=lambda pair: len(pair[0]), reverse=True
    ):
        words = r"\s+".join("(?:and|&)" if word.casefold() == "and" else re.escape(word) for word in name.split())
        if found := re.match(rf"[\s\W]*?{words}(?!\w)", line, re.IGNORECASE):
            return label, line[found.end() :]
    return None

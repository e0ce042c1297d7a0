"""What a word is: in scripts that are written without spaces, each letter."""

from __future__ import annotations

import re

# Thai, Lao, Tibetan, Myanmar, Khmer, kana, Bopomofo and CJK ideographs, with the marks that belong to their letters.
_SPACELESS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f00\u0f40-\u0f84\u0f86-\u0fbc\u1000-\u103f\u1050-\u108f\u109a-\u109d"
    "\u1780-\u17d3\u17d7\u17dc\u17dd\u3005-\u3007\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
SPACELESS = re.compile(f"[{_SPACELESS}]")
_WORD = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])\w)+")
# What may not stand on either side of a whole word: a letter or digit of a script that has spaces.
_NONE_BEFORE = rf"(?<!(?![{_SPACELESS}])\w)"
_NONE_BEHIND = rf"(?!(?![{_SPACELESS}])\w)"
_OF_A_DATE = "(?![\u5e74\u6708\u65e5\u53f7\u865f\u5929\u5c81\u6b73])"  # year, month, day, number, age: no label


def words(text: str) -> list[str]:
    """The words of a text in order, case and punctuation removed; a letter of a script without spaces is one."""
    return _WORD.findall(text.casefold())


def count_words(text: str) -> int:
    """How many words somebody would count: what stands between spaces, but letter by letter in scripts without them."""
    found = 0
    for part in text.split():
        letters = len(SPACELESS.findall(part))
        rest = SPACELESS.sub("", part)
        found += letters + any(c.isalnum() for c in rest) if letters else 1
    return found


def whole_word(word: str) -> str:
    """A pattern that finds `word` where nothing goes on beside it: no letter or digit where the word's own last (first)
    one is of a script with spaces.

    Edge cases: several letters of a script without spaces may stand anywhere, one alone only by itself, since it is
        part of many words; digits are found before such letters, but not in a date.
    """
    if SPACELESS.fullmatch(word):
        return rf"(?<!\w){re.escape(word)}(?!\w)"
    before = "" if SPACELESS.match(word[0]) else _NONE_BEFORE
    behind = "" if SPACELESS.match(word[-1]) else _NONE_BEHIND
    return before + re.escape(word) + behind + (_OF_A_DATE if word.isdigit() else "")

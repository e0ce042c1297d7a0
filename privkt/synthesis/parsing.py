"""What a language model answered, read tolerantly; what cannot be read is counted, never guessed and never hidden.

Counts name a reason and hold no text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from privkt.contracts import LabelledText
from privkt.synthesis.filters import strip_decoration
from privkt.synthesis.templates import Template, one_line

_DELIMITER = re.compile(r"^\s*(?:[-=*#~_`+]{2,}|<\|?/?\w+\|?>|</?s>|\[/?\w+\])\s*$")
_ITEM = re.compile(r"^\s*(?:[*_]{0,2}(?:\d{1,4}\s*[.):\]]|\[\d{1,4}\]|\(\d{1,4}\))[*_]{0,2}|[-*•–])\s+(?P<rest>.*)$")
_TEXT_FIELD = re.compile(r"^\s*[*_]{0,2}(?:text|review|news|article|content|sample)[*_]{0,2}\s*[:：][*_]{0,2}\s*", re.I)


@dataclass(frozen=True)
class ParseReport:
    """How many answers were read, how many rows they gave, and why the others gave none: {reason: count}."""

    answers: int = 0
    rows: int = 0
    unparsed: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: ParseReport) -> ParseReport:
        return ParseReport(
            self.answers + other.answers,
            self.rows + other.rows,
            dict(Counter(self.unparsed) + Counter(other.unparsed)),
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {"answers": self.answers, "rows": self.rows, "unparsed": dict(sorted(self.unparsed.items()))}


def is_delimiter(line: str) -> bool:
    """Whether a line is nothing but a separator that models echo: dashes, hashes, fences, chat marks."""
    return bool(_DELIMITER.match(line))


def list_items(answer: str) -> tuple[str, ...]:
    """The items of a numbered or bulleted list; lines under an item belong to it, a preface does not.

    Edge cases: an answer without any item has none; echoed delimiters are removed.
    """
    items: list[list[str]] = []
    for line in answer.splitlines():
        if is_delimiter(line):
            continue
        if found := _ITEM.match(line):
            items.append([found["rest"]])
        elif items and line.strip():
            items[-1].append(line)
        elif items and not line.strip():
            items[-1].append("")
    return tuple(text for item in items if (text := strip_decoration(one_line(_first_paragraph(item)))))


def labelled_texts(answer: str, template: Template) -> tuple[list[LabelledText], ParseReport]:
    """The rows of an answer written in the template's layout: a control code, then its text, again and again.

    Edge cases: the text may stand on the code's own line, after "Text:", in a numbered list or between echoed
        delimiters; text before the first code is nobody's and is dropped; a code without text, or whose label is not
        declared, is counted.
    """
    rows: list[LabelledText] = []
    unparsed: Counter[str] = Counter()
    label: str | None = None
    lines: list[str] = []
    open_code = False

    def close() -> None:
        nonlocal lines, open_code
        if open_code:
            text = strip_decoration(one_line(_TEXT_FIELD.sub("", _first_paragraph(lines))))
            if label is None:
                unparsed["undeclared label"] += 1
            elif not text:
                unparsed["code without text"] += 1
            else:
                rows.append(LabelledText(text, label))
        lines, open_code = [], False

    for line in answer.splitlines():
        if (code := template.read_code(line)) is not None:
            close()
            label, rest = code
            lines, open_code = [rest], True
        elif not is_delimiter(line):
            lines.append(line)
    close()
    if not rows and not unparsed:
        unparsed["no control code"] += 1
    return rows, ParseReport(1, len(rows), dict(unparsed))


def _first_paragraph(lines: Iterable[str]) -> str:
    """Lines up to the first empty one after any content: what a model says after its text is not part of it."""
    kept: list[str] = []
    for line in lines:
        if line.strip():
            kept.append(line.strip())
        elif kept:
            break
    return " ".join(kept)

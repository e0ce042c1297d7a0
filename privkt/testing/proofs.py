"""Proof pages and the code they speak of: neither moves without the other, or somebody says why it may.

A page has four headings (Precondition, Pseudocode, Postcondition, Argument), names its source files in backticks after
"Source:", and ends in a heading Record with one line a state:

    - source 3f0c9a… text 77b1d2…
    - source 9be412… text 77b1d2… reviewed: a variable was renamed

The last line must match the files and the text as they are; a line whose text equals the one before must be `reviewed`.
`python -m privkt.testing.proofs PAGE [--reviewed WHY]`, run from the repository's root, adds the line.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HEADINGS = ("Precondition", "Pseudocode", "Postcondition", "Argument")
_LINE = re.compile(r"- source ([0-9a-f]{16}) text ([0-9a-f]{16})(?: reviewed: (\S.*))?")


@dataclass(frozen=True)
class Entry:
    """One line of a page's record."""

    source: str
    text: str
    reviewed: str = ""


@dataclass(frozen=True)
class ProofPage:
    """A proof page as it lies on disk, beside the files it speaks of."""

    path: Path
    headings: tuple[str, ...]
    sources: tuple[str, ...]
    source: str
    text: str
    record: tuple[Entry, ...]

    def faults(self) -> list[str]:
        """What is wrong with the page, one line each; none if it holds."""
        found = []
        if self.headings != HEADINGS:
            found.append(f"headings must be {', '.join(HEADINGS)}, got {', '.join(self.headings) or 'none'}")
        if not self.sources:
            found.append("no source file is named in backticks after 'Source:'")
        if not self.record:
            return [*found, "its record is empty; add a line with `python -m privkt.testing.proofs`"]
        last = self.record[-1]
        if last.source != self.source:
            found.append(
                f"the code is {self.source} and the page speaks of {last.source}: read the proof against the change, "
                "correct it or review it, then `python -m privkt.testing.proofs PAGE [--reviewed WHY]`"
            )
        elif last.text != self.text:
            found.append(f"the text is {self.text} and the record says {last.text}; add a line for the new text")
        for before, after in zip(self.record, self.record[1:], strict=False):
            if before.text == after.text and not after.reviewed:
                found.append(f"source {after.source} came with an unchanged proof and no `reviewed:` why that is right")
        return [f"{self.path.name}: {fault}" for fault in found]


def read_page(path: Path, root: Path) -> ProofPage:
    """Parses a page; `root` is the folder that its source paths start from.

    Raises: FileNotFoundError, for a source that is not there.
    """
    whole = path.read_text(encoding="utf-8")
    body, _, record = whole.partition("\n## Record\n")
    named = re.search(r"Source:((?:[\s,]*`[^`]+`)+)", body)
    sources = tuple(re.findall(r"`([^`]+)`", named[1])) if named else ()
    state = hashlib.sha256()
    for source in sources:
        state.update(hashlib.sha256((root / source).read_bytes()).digest())
    entries = [Entry(m[1], m[2], m[3] or "") for m in map(_LINE.fullmatch, record.split("\n")) if m]
    return ProofPage(
        path,
        tuple(re.findall(r"^## (.+)$", body, re.MULTILINE)),
        sources,
        state.hexdigest()[:16],
        hashlib.sha256(" ".join(body.split()).encode()).hexdigest()[:16],
        tuple(entries),
    )


def add_entry(path: Path, root: Path, reviewed: str = "") -> str:
    """Writes the line for the present state at the end of a page and returns it."""
    page = read_page(path, root)
    if page.record and page.record[-1].text == page.text and not reviewed:
        raise ValueError(f"{path.name}: the proof's text did not change; say why it still holds with --reviewed")
    line = f"- source {page.source} text {page.text}" + (f" reviewed: {reviewed}" if reviewed else "")
    whole = path.read_text(encoding="utf-8").rstrip("\n")
    gap = "\n\n" if whole.endswith("## Record") else "\n"
    path.write_text(f"{whole}{gap}{line}\n", encoding="utf-8")
    return line


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m privkt.testing.proofs", description="Record a proof page's state.")
    parser.add_argument("page", type=Path)
    parser.add_argument("--reviewed", default="", help="why the unchanged text still holds for the changed code")
    options = parser.parse_args(arguments)
    try:
        print(add_entry(options.page, Path.cwd(), options.reviewed))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Students by content: made once, published, and checked by whoever takes one.

A provider publishes what it distils (a folder that both can reach stands for that here; a public hub would do as well),
and tells clients its name and digest. Nothing private is ever in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from privkt.privacy import RefusedInput

VARIABLE = "PRIVKT_STUDENTS"
CARD = "student.json"
_NAME_DIGITS = 32


class StudentStore:
    """A folder of published students, each under the hash of what it was made from."""

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        given = folder or os.environ.get(VARIABLE)
        self.folder = Path(given) if given else user_cache_path("privkt") / "students"

    def path(self, name: str) -> Path:
        """Where a student lies, or would lie."""
        return self.folder / name

    def publish(self, name: str, make: Callable[[Path, Path], dict[str, Any]]) -> Path:
        """The student's folder; `make(place, work)` fills it, working in a folder that survives a crash.

        Guarantee: it appears whole or not at all; two processes make it once.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final, partial, work = self.path(name), self.folder / f".partial-{name}", self.folder / f".work-{name}"
        with FileLock(self.folder / f".{name}.lock"):
            if (final / CARD).is_file():
                return final
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            work.mkdir(exist_ok=True)
            card = make(partial, work)
            (partial / CARD).write_text(json.dumps({**card, "sha256": digest_of(partial)}, indent=2, sort_keys=True))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            shutil.rmtree(work, ignore_errors=True)
        return final

    def card(self, name: str) -> dict[str, Any]:
        """What is told of a student: public settings, sizes, losses, its digest."""
        return json.loads((self.path(name) / CARD).read_text(encoding="utf-8"))

    def take(self, name: str, sha256: str) -> Path:
        """The folder of a published student. Raises RefusedInput, if it is missing or is not what was announced."""
        if len(name) != _NAME_DIGITS or not set(name) <= set("0123456789abcdef"):
            raise RefusedInput(
                f"post: a student's name must be {_NAME_DIGITS} hex digits, got another; run the server again"
            )
        folder = self.path(name)
        if not (folder / CARD).is_file():
            raise RefusedInput(
                f"post: student {name} must lie in the store of students, and does not; fetch it from the provider "
                f"into the folder named by {VARIABLE} or `distillation.store`"
            )
        if digest_of(folder) != sha256:
            raise RefusedInput(
                f"post: student {name} must have the digest that the provider announced, and has another; fetch it "
                "again"
            )
        return folder


def student_name(*parts: Any) -> str:
    """A name for what these public values make: 32 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_NAME_DIGITS]


def digest_of(folder: Path) -> str:
    """SHA-256 over a public model's files, but for its card."""
    state = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != CARD:
            state.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    state.update(block)
    return state.hexdigest()

"""Which plugins are installed, and which of them the switches let in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

GROUP = "privkt"
BUILTIN_DISTRIBUTION = "privkt"
LOAD_SWITCH = "PRIVKT_LOAD_PLUGINS"
DISABLE_SWITCH = "PRIVKT_DISABLE_PLUGINS"


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it: "Privkt_Example" is "privkt-example"."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True)
class Candidate:
    """A plugin that is installed; `load` imports it and may raise anything."""

    distribution: str
    entry: str
    version: str
    load: Callable[[], Any]

    @property
    def identity(self) -> str:
        """ "distribution:entry", unique on one machine."""
        return f"{self.distribution}:{self.entry}"

    @property
    def builtin(self) -> bool:
        """Whether it comes in privkt's own wheel."""
        return self.distribution == BUILTIN_DISTRIBUTION


def installed() -> list[Candidate]:
    """Every entry point of the group `privkt`, built-ins first, then by identity. Imports none of them."""
    found = []
    for point in metadata.entry_points(group=GROUP):
        distribution = normalised(point.dist.name) if point.dist else "unknown"
        version = point.dist.version if point.dist else ""
        found.append(Candidate(distribution, point.name, version, point.load))
    return sorted(found, key=lambda c: (not c.builtin, c.identity))


@dataclass(frozen=True)
class Switches:
    """PRIVKT_LOAD_PLUGINS and PRIVKT_DISABLE_PLUGINS: comma lists of identities or entries.

    Edge cases: `load` None (unset) lets all in; an empty list lets in the built-ins alone; a built-in is kept out only
    by `disable`, which wins over `load`; an entry without its distribution means every plugin of that entry.
    """

    load: tuple[str, ...] | None = None
    disable: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Switches:
        """The switches as the environment sets them."""
        load = environ.get(LOAD_SWITCH)
        return cls(None if load is None else _items(load), _items(environ.get(DISABLE_SWITCH, "")))

    def refusal(self, candidate: Candidate) -> str:
        """Why `candidate` stays out; empty if it may come in."""
        names = {candidate.identity, candidate.entry}
        if names & set(self.disable):
            return f"kept out by {DISABLE_SWITCH}"
        if not candidate.builtin and self.load is not None and not names & set(self.load):
            return f"not named in {LOAD_SWITCH}"
        return ""

    def strangers(self, candidates: Iterable[Candidate]) -> list[str]:
        """A warning for each item that names no installed plugin: a mistyped switch must not pass unseen."""
        known = sorted({name for c in candidates for name in (c.identity, c.entry)})
        warnings = []
        for switch, items in ((LOAD_SWITCH, self.load or ()), (DISABLE_SWITCH, self.disable)):
            for item in items:
                if item not in known:
                    near = difflib.get_close_matches(item, known, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else "no such plugin is installed"
                    warnings.append(f"{switch}: {item!r} names no plugin; {hint}")
        return warnings


def _items(text: str) -> tuple[str, ...]:
    parts = (part.strip() for part in text.split(","))
    return tuple(
        f"{normalised(part.rpartition(':')[0])}:{part.rpartition(':')[2]}" if ":" in part else part
        for part in parts
        if part
    )

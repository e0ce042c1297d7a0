"""What the manager says of a plugin, and of each thing it provides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from privkt.plugins.types import PluginKind, Provided


class Status(StrEnum):
    """How a plugin fares.

    ok: everything it declares is there. newer: it also implements hooks that this privkt does not know.
    failing: a hook of it raised or answered with something that is not a declaration. broken: it could not be
    loaded at all. disabled: a switch keeps it out; it was not imported.
    """

    OK = "ok"
    NEWER = "newer"
    FAILING = "failing"
    BROKEN = "broken"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Provision:
    """One named thing that a plugin provides.

    `full_name` is "distribution:name" and always works; `short` says whether the bare `name` means this one too.
    `plugin` is the identity "distribution:entry" of who provides it.
    """

    kind: PluginKind
    name: str
    full_name: str
    spec: Provided
    plugin: str
    short: bool = True

    @property
    def shown_name(self) -> str:
        """The shortest name that means this one."""
        return self.name if self.short else self.full_name


@dataclass(frozen=True)
class PluginStatus:
    """One plugin as `privkt plugins` lists it; `reason` is one line, empty when all is well."""

    identity: str
    distribution: str
    version: str
    entry: str
    status: Status
    reason: str = ""
    builtin: bool = False
    provides: tuple[Provision, ...] = ()

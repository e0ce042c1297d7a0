"""Which plugin a name means, and what is said when it means none.

A built-in keeps its short name; a third party's thing of the same name is reached as "distribution:name". Between
third parties nobody gets the short name: installing one more package must not change what a config runs.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from privkt.plugins.discovery import BUILTIN_DISTRIBUTION, normalised
from privkt.plugins.loading import LoadedPlugin
from privkt.plugins.status import Provision, Status
from privkt.plugins.types import PluginKind
from privkt.privacy.errors import RefusedInput


class UnknownPlugin(RefusedInput):
    """No plugin provides something of that kind and name, or more than one third party does."""


class BrokenPlugin(RefusedInput):
    """A plugin names a factory that cannot be imported, or that does not take the parameters it was given."""


def settle_names(provisions: Sequence[Provision]) -> tuple[list[Provision], list[str]]:
    """The same provisions with `short` decided, and a warning for each name that two distributions share."""
    claims: dict[tuple[PluginKind, str], list[Provision]] = defaultdict(list)
    for provision in provisions:
        claims[provision.kind, provision.name].append(provision)
    settled, warnings = [], []
    for provision in provisions:
        rivals = claims[provision.kind, provision.name]
        builtin = [r for r in rivals if _is_builtin(r)]
        owners = builtin or rivals
        settled.append(dataclasses.replace(provision, short=provision in owners and len(owners) == 1))
    for (kind, name), rivals in claims.items():
        if len(rivals) < 2:
            continue
        if len({r.full_name for r in rivals}) < len(rivals):
            who = ", ".join(r.plugin for r in rivals)
            warnings.append(
                f"{kind} {name!r} is provided more than once by one distribution ({who}); disable one of them"
            )
            continue
        builtin = [r for r in rivals if _is_builtin(r)]
        others = " and ".join(repr(r.full_name) for r in rivals if r not in builtin)
        meaning = f"means the built-in; reach the other as {others}" if builtin else f"is refused; write {others}"
        warnings.append(f"{kind} {name!r} has {len(rivals)} providers: the short name {meaning}")
    return settled, warnings


def find(kind: PluginKind, name: str, provisions: Sequence[Provision], plugins: Iterable[LoadedPlugin]) -> Provision:
    """The provision that `name` means. Raises UnknownPlugin with the nearest names and what to do."""
    wanted = _canonical(name)
    of_kind = [p for p in provisions if p.kind is kind]
    matching = [p for p in of_kind if wanted == p.full_name] or [
        p for p in of_kind if p.name == wanted and (p.short or not _short_owner(of_kind, wanted))
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        full = sorted({p.full_name for p in matching})
        who = sorted({p.plugin for p in matching})
        if len(full) == 1:
            raise UnknownPlugin(
                f"{kind}: {name!r} is provided more than once, by {', '.join(who)}; keep one of them out with "
                "PRIVKT_DISABLE_PLUGINS"
            )
        raise UnknownPlugin(f"{kind}: {name!r} is ambiguous: write {' or '.join(repr(f) for f in full)} in full")
    raise UnknownPlugin(_unknown(kind, name, wanted, of_kind, plugins))


def _short_owner(of_kind: Iterable[Provision], name: str) -> bool:
    return any(p.name == name and p.short for p in of_kind)


def _is_builtin(provision: Provision) -> bool:
    return provision.full_name.startswith(f"{BUILTIN_DISTRIBUTION}:")


def _canonical(name: str) -> str:
    distribution, colon, rest = name.rpartition(":")
    return f"{normalised(distribution)}:{rest}" if colon else name


def _unknown(
    kind: PluginKind, name: str, wanted: str, of_kind: Sequence[Provision], plugins: Iterable[LoadedPlugin]
) -> str:
    known = sorted({n for p in of_kind for n in ((p.name, p.full_name) if p.short else (p.full_name,))})
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    shown = sorted({p.shown_name for p in of_kind})
    hint = f"nearest: {', '.join(map(repr, near))}" if near else f"known: {', '.join(shown) or 'none at all'}"
    lines = [f"{kind}: no plugin provides {name!r}; {hint}"]
    lines += [f"  {line}" for line in _absent(kind, wanted, plugins)]
    lines.append(
        f"  `privkt plugins --kind {kind}` lists what is there; a missing one comes with `pip install` of the package "
        "that has it"
    )
    return "\n".join(lines)


def _absent(kind: PluginKind, wanted: str, plugins: Iterable[LoadedPlugin]) -> list[str]:
    """Plugins that may hold the name but do not answer for this kind, the likeliest first."""
    distribution, _, rest = wanted.rpartition(":")
    absent = [
        p
        for p in plugins
        if p.status in (Status.BROKEN, Status.DISABLED) or kind in p.failing_kinds
        if not distribution or p.candidate.distribution == distribution
    ]
    absent.sort(key=lambda p: (p.candidate.entry != rest, p.identity))
    cures = {
        Status.BROKEN: "mend or reinstall it",
        Status.FAILING: "mend or reinstall it",
        Status.DISABLED: "enable it there",
    }
    return [
        f"plugin {p.identity!r} is {p.status} and may provide it: {'; '.join(p.reasons)}; {cures[p.status]}"
        for p in absent
    ]

"""Loads one plugin and asks its hooks, so that whatever it does wrong stays with it.

Every plugin gets a pluggy manager of its own: pluggy itself stops at the first plugin that does not import, skips a
second entry of the same name in silence, and throws away everybody's answers when one hook raises.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

import pluggy

from privkt.plugins import hookspec
from privkt.plugins.discovery import Candidate
from privkt.plugins.status import PluginStatus, Provision, Status
from privkt.plugins.types import (
    BackendSpec,
    DatasetSpec,
    EvaluatorSpec,
    MechanismSpec,
    MethodSpec,
    PluginKind,
    Provided,
)
from privkt.privacy.guarantee import Kind, Neighbouring, Unit

PROVIDING_HOOKS: dict[str, tuple[PluginKind, type[Provided]]] = {
    "privkt_mechanisms": (PluginKind.MECHANISM, MechanismSpec),
    "privkt_methods": (PluginKind.METHOD, MethodSpec),
    "privkt_backends": (PluginKind.BACKEND, BackendSpec),
    "privkt_datasets": (PluginKind.DATASET, DatasetSpec),
    "privkt_evaluators": (PluginKind.EVALUATOR, EvaluatorSpec),
}
HOOKS = (*PROVIDING_HOOKS, "privkt_before_release")

# What a plugin may do to its caller: anything an import or a call can raise, and sys.exit. Ctrl-C stays Ctrl-C.
FAULTS = (Exception, SystemExit)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class BadDeclaration(ValueError):
    """A hook answered with something that is not a declaration of its kind."""


@dataclass
class LoadedPlugin:
    """One plugin after loading: how it fares, what it provides, and its hooks."""

    candidate: Candidate
    status: Status = Status.OK
    reasons: list[str] = field(default_factory=list)
    provisions: list[Provision] = field(default_factory=list)
    failing_kinds: set[PluginKind] = field(default_factory=set)
    hooks: pluggy.PluginManager | None = None

    @property
    def identity(self) -> str:
        return self.candidate.identity

    def worsen(self, status: Status, reason: str) -> None:
        """Records a fault; the worst status wins, every reason is kept."""
        order = list(Status)
        self.status = max(self.status, status, key=order.index)
        self.reasons.append(reason)

    def public(self) -> PluginStatus:
        """What the listing shows."""
        c = self.candidate
        reason = "; ".join(self.reasons)
        return PluginStatus(
            c.identity, c.distribution, c.version, c.entry, self.status, reason, c.builtin, tuple(self.provisions)
        )


def one_line(fault: BaseException) -> str:
    """An exception as one short line: its type and the first line of its text."""
    text = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    return f"{type(fault).__name__}: {text}"[:240] if text else type(fault).__name__


def load_plugin(candidate: Candidate) -> LoadedPlugin:
    """Imports a plugin, checks its hooks and collects what it provides. Never raises for a fault of the plugin."""
    loaded = LoadedPlugin(candidate)
    try:
        plugin = candidate.load()
    except FAULTS as fault:
        loaded.worsen(Status.BROKEN, f"import failed: {one_line(fault)}")
        return loaded
    hooks = pluggy.PluginManager(hookspec.PROJECT)
    hooks.add_hookspecs(hookspec)
    try:
        hooks.register(plugin, candidate.identity)
    except FAULTS as fault:
        loaded.worsen(Status.BROKEN, _signature_fault(fault))
        return loaded
    _note_unknown_hooks(loaded, hooks, plugin)
    if not hooks.get_hookcallers(plugin):
        loaded.worsen(Status.BROKEN, "it implements no hook; mark functions with `privkt.plugins.hookimpl`")
        return loaded
    loaded.hooks = hooks
    for hook, (kind, spec_type) in PROVIDING_HOOKS.items():
        _collect(loaded, hook, kind, spec_type)
    return loaded


def _signature_fault(fault: BaseException) -> str:
    if not isinstance(fault, pluggy.PluginValidationError):
        return f"hooks could not be read: {one_line(fault)}"
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    named = re.search(r"hook '?(\w+)'?", " ".join(lines))
    allowed = next((line for line in reversed(lines) if line.startswith("hookimpl definition")), "")
    detail = re.sub(r"^hookimpl definition: ", "it is written ", allowed)
    wanted = f"wrong signature of {named[1]}" if named else "wrong hook signature"
    return f"{wanted}: {detail or lines[-1]}; docs/plugins.md has the arguments each hook takes"


def _note_unknown_hooks(loaded: LoadedPlugin, hooks: pluggy.PluginManager, plugin: Any) -> None:
    for caller in hooks.get_hookcallers(plugin) or ():
        if caller.spec is not None or all(impl.optionalhook for impl in caller.get_hookimpls()):
            continue
        near = difflib.get_close_matches(caller.name, HOOKS, n=1, cutoff=0.8)
        hint = f"did it mean {near[0]!r}, or does it need a newer privkt?" if near else "it needs a newer privkt"
        loaded.worsen(Status.NEWER, f"hook {caller.name!r} is unknown to plugin API {hookspec.API_VERSION}; {hint}")


def _collect(loaded: LoadedPlugin, hook: str, kind: PluginKind, spec_type: type[Provided]) -> None:
    assert loaded.hooks is not None
    try:
        answers = getattr(loaded.hooks.hook, hook)()
        found = [_declared(hook, spec, spec_type) for answer in answers for spec in answer]
        names = [spec.name for spec in found]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadDeclaration(f"{hook}: names must differ, got {twice!r} twice")
    except FAULTS as fault:
        loaded.failing_kinds.add(kind)
        loaded.worsen(Status.FAILING, f"hook {hook!r} failed: {one_line(fault)}")
        return
    loaded.provisions += [
        Provision(kind, spec.name, f"{loaded.candidate.distribution}:{spec.name}", spec, loaded.identity)
        for spec in found
    ]


def _declared(hook: str, spec: Any, spec_type: type[Provided]) -> Provided:
    if not isinstance(spec, spec_type):
        raise BadDeclaration(f"{hook}: must yield {spec_type.__name__}, got {type(spec).__name__}")
    if not _NAME.fullmatch(spec.name):
        raise BadDeclaration(
            f"{hook}: a name must be lower-case letters, digits and . _ -, got {spec.name!r}; "
            "the distribution is put before it by privkt"
        )
    if not _FACTORY.fullmatch(spec.factory):
        raise BadDeclaration(f"{hook}: factory of {spec.name!r} must be 'module:attribute', got {spec.factory!r}")
    if isinstance(spec, MechanismSpec):
        _declared_guarantee(hook, spec)
    return spec


def _declared_guarantee(hook: str, spec: MechanismSpec) -> None:
    for what, value, known in (
        ("guarantee", spec.guarantee, list(Kind)),
        ("unit", spec.unit, list(Unit)),
        ("neighbouring", spec.neighbouring, list(Neighbouring)),
    ):
        if value not in known:
            raise BadDeclaration(f"{hook}: {what} of {spec.name!r} must be one of {', '.join(known)}, got {value!r}")
    if spec.guarantee != Kind.NONE and not spec.proof:
        raise BadDeclaration(f"{hook}: {spec.name!r} must name the page of its proof, or declare the guarantee 'none'")

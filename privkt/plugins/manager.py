"""The plugin manager: finds plugins, keeps each one's faults to itself, and makes what they provide.

Discovery fails open: a broken plugin is listed as broken and everything else works. `before_release` fails closed:
whatever a plugin does there except agree keeps the release from crossing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from privkt.plugins import lookup
from privkt.plugins.discovery import BUILTIN_DISTRIBUTION, Candidate, Switches, installed, normalised
from privkt.plugins.loading import FAULTS, LoadedPlugin, load_plugin, one_line
from privkt.plugins.lookup import BrokenPlugin
from privkt.plugins.status import PluginStatus, Provision, Status
from privkt.plugins.types import PluginKind, ReleaseSummary, ReleaseVetoed

_BEFORE_RELEASE = "privkt_before_release"


class PluginManager:
    """Plugins of this environment, loaded one by one.

    Edge cases: `candidates=()` starts empty, for tests, which then `register` what they want.
    """

    def __init__(self, candidates: Iterable[Candidate] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._plugins: list[LoadedPlugin] = []
        self._provisions: list[Provision] = []
        self._warnings: list[str] = []
        self._name_warnings: list[str] = []
        self._switches = Switches.read(os.environ if environ is None else environ)
        found = installed() if candidates is None else list(candidates)
        self._warnings += self._switches.strangers(found)
        if candidates is None and not any(c.builtin for c in found):
            self._warnings.append(
                "privkt's own plugins were not found: privkt is imported from its source folder but not installed; "
                "run `pip install -e .` there"
            )
        for candidate in found:
            self._add(candidate)
        self._settle()

    def register(
        self, plugin: Any, *, distribution: str = "local", entry: str = "plugin", version: str = "0"
    ) -> PluginStatus:
        """Adds an object with hooks (a module, an instance) that no entry point names; for tests and notebooks."""
        loaded = self._add(Candidate(normalised(distribution), entry, version, lambda: plugin))
        self._settle()
        return next(p.public() for p in self._plugins if p is loaded)

    def plugins(self) -> list[PluginStatus]:
        """Every installed plugin with its status, built-ins first."""
        return [plugin.public() for plugin in self._plugins]

    def provided(self, kind: PluginKind | str | None = None) -> list[Provision]:
        """Everything provided, or everything of one kind, in the order of `plugins`."""
        wanted = None if kind is None else PluginKind(kind)
        return [p for p in self._provisions if wanted is None or p.kind is wanted]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know: broken and newer plugins, shared names, mistyped switches. One line each."""
        troubled = [
            f"plugin {p.identity!r} is {p.status}: {'; '.join(p.reasons)}"
            for p in self._plugins
            if p.status in (Status.BROKEN, Status.FAILING, Status.NEWER)
        ]
        return (*self._warnings, *troubled, *self._name_warnings)

    def find(self, kind: PluginKind | str, name: str) -> Provision:
        """What `name` ("fdkt", or "distribution:name") means. Raises UnknownPlugin, saying what is near."""
        return lookup.find(PluginKind(kind), name, self._provisions, self._plugins)

    def load(self, kind: PluginKind | str, name: str) -> Any:
        """The attribute that the factory names (a method's class), imported now.

        Raises: UnknownPlugin; BrokenPlugin, when the import fails.
        """
        provision = self.find(kind, name)
        return _imported(provision)

    def create(self, kind: PluginKind | str, name: str, *args: Any, **kwargs: Any) -> Any:
        """What the factory makes of these arguments.

        Raises: UnknownPlugin; BrokenPlugin, when the import fails or the factory takes other parameters; and what the
        factory itself raises.
        """
        provision = self.find(kind, name)
        factory = _imported(provision)
        _check_arguments(provision, factory, args, kwargs)
        return factory(*args, **kwargs)

    def check(self, kind: PluginKind | str, name: str, *args: Any, **kwargs: Any) -> None:
        """What `create` says to parameters that the factory does not take, before their values are there.

        Raises: UnknownPlugin, BrokenPlugin.
        """
        provision = self.find(kind, name)
        _check_arguments(provision, _imported(provision), args, kwargs)

    def before_release(self, summary: ReleaseSummary) -> None:
        """Asks every plugin whether `summary` may cross.

        Guarantee: returns only if each `privkt_before_release` hook returned None; the first that raises or answers
        anything else ends in ReleaseVetoed with its plugin's identity.
        """
        for plugin in self._plugins:
            if plugin.hooks is None:
                continue
            try:
                answers = getattr(plugin.hooks.hook, _BEFORE_RELEASE)(summary=summary)
            except ReleaseVetoed as veto:
                raise ReleaseVetoed(f"plugin {plugin.identity!r} refused this release: {veto}") from None
            except FAULTS as fault:
                # The text of a stranger's exception is not repeated: only its type is known to be public.
                raise ReleaseVetoed(
                    f"plugin {plugin.identity!r} failed in {_BEFORE_RELEASE} with {type(fault).__name__}, so nothing "
                    "crosses; mend it or keep it out with PRIVKT_DISABLE_PLUGINS"
                ) from fault
            if answers:
                raise ReleaseVetoed(
                    f"plugin {plugin.identity!r} answered {type(answers[0]).__name__} in {_BEFORE_RELEASE}, which must "
                    "return None to agree or raise ReleaseVetoed to refuse; nothing crosses"
                )

    def _add(self, candidate: Candidate) -> LoadedPlugin:
        refusal = self._switches.refusal(candidate)
        if any(p.identity == candidate.identity for p in self._plugins):
            loaded = LoadedPlugin(candidate)
            loaded.worsen(Status.BROKEN, "its distribution declares this entry twice; only the first is loaded")
        elif refusal:
            loaded = LoadedPlugin(candidate)
            loaded.worsen(Status.DISABLED, refusal)
        else:
            loaded = load_plugin(candidate)
        self._plugins.append(loaded)
        return loaded

    def _settle(self) -> None:
        everything = [provision for plugin in self._plugins for provision in plugin.provisions]
        self._provisions, self._name_warnings = lookup.settle_names(everything)
        rest = iter(self._provisions)
        for plugin in self._plugins:
            plugin.provisions = [next(rest) for _ in plugin.provisions]


def _imported(provision: Provision) -> Any:
    module_name, _, path = provision.spec.factory.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except FAULTS as fault:
        builtin = provision.full_name.startswith(f"{BUILTIN_DISTRIBUTION}:")
        whose = "privkt" if builtin else provision.full_name.partition(":")[0]
        raise BrokenPlugin(
            f"{provision.kind} {provision.shown_name!r} of plugin {provision.plugin!r}: its factory "
            f"{provision.spec.factory!r} must import, got {one_line(fault)}; install what it needs "
            f"or reinstall {whose!r}"
        ) from fault
    return found


def _check_arguments(
    provision: Provision, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # written in C: the call itself will say
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = [n for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD]
        open_ended = len(takes) < len(signature.parameters)
        unknown = [key for key in kwargs if key not in takes and not open_ended]
        near = difflib.get_close_matches(unknown[0], takes, n=1) if unknown else []
        what = f"unknown parameter {unknown[0]!r}" if unknown else str(error)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(takes) or 'nothing'}"
        raise BrokenPlugin(f"{provision.kind} {provision.shown_name!r}: {what}; {hint}") from None


_lock = threading.Lock()
_shared: PluginManager | None = None


def get_manager(reload: bool = False) -> PluginManager:
    """The manager of this process, made at first use; `reload` looks at the environment again."""
    global _shared
    with _lock:
        if _shared is None or reload:
            _shared = PluginManager()
        return _shared

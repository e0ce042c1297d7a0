"""The hooks a plugin may implement. `API_VERSION` grows when a hook is added."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from privkt.plugins.types import (
    BackendSpec,
    DatasetSpec,
    EvaluatorSpec,
    MechanismSpec,
    MethodSpec,
    ReleaseSummary,
)

PROJECT = "privkt"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def privkt_mechanisms() -> Iterable[MechanismSpec]:
    """Mechanisms this plugin provides."""
    return ()


@hookspec
def privkt_methods() -> Iterable[MethodSpec]:
    """Transfer methods this plugin provides."""
    return ()


@hookspec
def privkt_backends() -> Iterable[BackendSpec]:
    """Model backends this plugin provides."""
    return ()


@hookspec
def privkt_datasets() -> Iterable[DatasetSpec]:
    """Sources of rows this plugin can read."""
    return ()


@hookspec
def privkt_evaluators() -> Iterable[EvaluatorSpec]:
    """Evaluators this plugin provides."""
    return ()


@hookspec
def privkt_before_release(summary: ReleaseSummary) -> None:
    """Called before anything crosses; raise ReleaseVetoed to refuse. Any other exception refuses too."""

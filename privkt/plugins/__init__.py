"""What plugin authors import: the hook marker and the declarations; and the manager that finds plugins."""

from privkt.plugins.hookspec import API_VERSION, hookimpl
from privkt.plugins.lookup import BrokenPlugin, UnknownPlugin
from privkt.plugins.manager import PluginManager, get_manager
from privkt.plugins.status import PluginStatus, Provision, Status
from privkt.plugins.types import (
    BackendSpec,
    DatasetSpec,
    EvaluatorSpec,
    MechanismSpec,
    MethodSpec,
    PluginKind,
    Provided,
    ReleaseSummary,
    ReleaseVetoed,
)

__all__ = [
    "API_VERSION",
    "BackendSpec",
    "BrokenPlugin",
    "DatasetSpec",
    "EvaluatorSpec",
    "MechanismSpec",
    "MethodSpec",
    "PluginKind",
    "PluginManager",
    "PluginStatus",
    "Provided",
    "Provision",
    "ReleaseSummary",
    "ReleaseVetoed",
    "Status",
    "UnknownPlugin",
    "get_manager",
    "hookimpl",
]

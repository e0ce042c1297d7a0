"""What a plugin declares: plain dataclasses, so that listing plugins imports nothing heavy.

`factory` is "module:attribute"; the manager imports it when the object is first wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PluginKind(StrEnum):
    """What a plugin can provide."""

    MECHANISM = "mechanism"
    METHOD = "method"
    BACKEND = "backend"
    DATASET = "dataset"
    EVALUATOR = "evaluator"


@dataclass(frozen=True)
class Provided:
    """Something with a name that a plugin provides."""

    name: str
    factory: str
    summary: str = ""


@dataclass(frozen=True)
class MechanismSpec(Provided):
    """factory: (**parameters) -> Mechanism. `guarantee` is a Kind, "none" when unproven; `proof` names a page."""

    guarantee: str = "none"
    unit: str = ""
    neighbouring: str = ""
    proof: str = ""


@dataclass(frozen=True)
class MethodSpec(Provided):
    """factory: the TransferMethod subclass. `paper` is its citation."""

    paper: str = ""


@dataclass(frozen=True)
class BackendSpec(Provided):
    """factory: (options, BackendContext) -> Backend. `capabilities` as declared; `remote`: text leaves the process."""

    capabilities: tuple[str, ...] = ()
    remote: bool = False


@dataclass(frozen=True)
class DatasetSpec(Provided):
    """factory: (DataSource) -> Dataset. `name` is the `source:` of a data block."""


@dataclass(frozen=True)
class EvaluatorSpec(Provided):
    """factory: () -> Evaluator."""

    kind: str = "usefulness"


@dataclass(frozen=True)
class ReleaseSummary:
    """What `privkt_before_release` sees of something about to cross: public facts only, never its payload."""

    client: str
    step: str
    message: str
    rows: int
    size_bytes: int
    sha256: str
    guarantee: str


class ReleaseVetoed(Exception):
    """Raised by a `privkt_before_release` hook to keep something from crossing; the spend stays."""

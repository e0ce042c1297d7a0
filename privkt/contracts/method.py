"""Methods: a transfer protocol written once, as steps that alternate between clients and a server.

Order of definition is the protocol. A runtime makes a new object for every step and site, so nothing on `self`
survives a step: what must survive goes to `site.state`.
"""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from privkt.contracts.backend import Backend
from privkt.contracts.dataset import PrivateData, Rows
from privkt.contracts.messages import ClientId, Message, Outcome
from privkt.contracts.progress import NoProgress, Progress
from privkt.privacy import Budget, Guarantee, RefusedInput, event_from_json, poisson_gaussian_event

if TYPE_CHECKING:
    from dp_accounting import DpEvent

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "_privkt_step"


class Side(StrEnum):
    """Who runs a step."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True)
class Step:
    """One step of a protocol. `once`: it does not depend on the run's seed, so several seeds share its result."""

    name: str
    side: Side
    once: bool = False
    title: str = ""


class MethodConfig(BaseModel):
    """Base of every method's own config block; its JSON schema documents the YAML. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class State(Protocol):
    """What a site keeps between steps: typed messages by name, on disk, private to the site."""

    def save(self, name: str, value: Message) -> None:
        """Stores a message, atomically; the same name again replaces it."""

    def load(self, name: str) -> Any:
        """The message stored under `name`; KeyError names what there is."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def save_json(self, name: str, value: Any) -> None:
        """Stores JSON values beside the messages."""

    def load_json(self, name: str) -> Any: ...

    def save_release(self, name: str, release: Any) -> None:
        """Stores a Release with its guarantee, event, provenance and charge."""

    def load_release(self, name: str) -> Any: ...


@dataclass
class Site:
    """What both kinds of site have. `folder` is this step's own private folder; it survives a crash and is
    removed when the step is done (what it returned and what it put into `state` are kept)."""

    models: Mapping[str, Backend]
    state: State
    folder: Path
    seed: int = 0
    progress: Progress = field(default_factory=NoProgress)

    def model(self, role: str) -> Backend:
        """The backend of a role. Raises KeyError naming the roles that the config gives."""
        if role not in self.models:
            raise KeyError(f"model role {role!r} is not in the config; it has {', '.join(sorted(self.models))}")
        return self.models[role]


@dataclass
class ClientSite(Site):
    """A client: private data, its budget and ledger (inside `budget`), its models."""

    id: ClientId = ""
    data: PrivateData = None  # type: ignore[assignment]
    budget: Budget = None  # type: ignore[assignment]
    run_id: str = ""
    data_set_id: str = ""
    evaluation: Callable[[], Rows] | None = None


@dataclass
class ServerSite(Site):
    """The server. It has no private data by construction; what it knows of clients is declared and public."""

    clients: Mapping[ClientId, PublicFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class PublicFacts:
    """What the config declares of a client: public by design.

    `columns` are those that its data block lists beside text and label, `held_out_columns` those of evaluation rows;
    `roles` are the model roles that the config fills. Each is None where nothing is known of it.
    """

    name: str
    size: int
    labels: tuple[str, ...] | None
    columns: tuple[str, ...] | None = None
    held_out_columns: tuple[str, ...] | None = None
    roles: frozenset[str] | None = None

    def need_column(self, where: str, name: str) -> None:
        """Raises RefusedInput, naming `where` a column was asked for, if a data block is known not to list it."""
        for block, listed in (("data", self.columns), ("evaluation.data", self.held_out_columns)):
            if listed is not None and name not in listed:
                raise RefusedInput(
                    f"{where}: the rows must have the column {name!r}, and `columns` of {block} lists "
                    f"{', '.join(map(repr, listed)) or 'none'}; add it there, or correct the name"
                )


@dataclass(frozen=True)
class TrainingPlan:
    """One private training, fixed before data is read."""

    purpose: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    guarantee: Guarantee
    noise_per_coordinate: float

    def event(self) -> DpEvent:
        """What the ledger will be asked for."""
        return poisson_gaussian_event(self.noise_multiplier, self.sampling_rate, self.steps)


@dataclass(frozen=True)
class PerturbationPlan:
    """Token-by-token perturbation of every record, fixed before data is read.

    Units: `positions` tokens a record are drawn, whatever its length; `epsilon_per_token` is the certified one of a
        draw; `guarantee` is that of a whole record. `event_json` is what `privkt.privacy.event_to_json` wrote.
    `facts` are lines that say what to expect of the texts, such as the ceiling of their usefulness.
    """

    purpose: str
    mechanism: str
    positions: int
    epsilon_per_token: float
    guarantee: Guarantee
    event_json: Mapping[str, Any]
    facts: tuple[str, ...] = ()

    def event(self) -> DpEvent:
        """What the ledger will be asked for."""
        return event_from_json(self.event_json)


@dataclass(frozen=True)
class StatisticPlan:
    """A noisy statistic of the whole data set, fixed before data is read; `facts` are lines that say what is in it.

    `event_json` is what `privkt.privacy.event_to_json` wrote.
    """

    purpose: str
    mechanism: str
    guarantee: Guarantee
    event_json: Mapping[str, Any]
    facts: tuple[str, ...] = ()

    def event(self) -> DpEvent:
        """What the ledger will be asked for."""
        return event_from_json(self.event_json)


@dataclass(frozen=True)
class Plan:
    """What a run will do, from declared numbers alone; `privkt plan` prints it.

    `shared`: requests and bytes are those of all seeds together, not of each.
    `bytes_out` is None where it follows from a model's shape, which no plan reads.
    """

    trainings: tuple[TrainingPlan, ...] = ()
    perturbations: tuple[PerturbationPlan, ...] = ()
    statistics: tuple[StatisticPlan, ...] = ()
    llm_requests: int = 0
    llm_prompt_tokens: int = 0
    llm_new_tokens: int = 0
    bytes_out: int | None = 0
    crosses: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    shared: bool = False

    @property
    def spends(self) -> tuple[TrainingPlan | PerturbationPlan | StatisticPlan, ...]:
        """Everything that a ledger will be charged for."""
        return (*self.trainings, *self.perturbations, *self.statistics)


@dataclass(frozen=True)
class Prediction:
    """A label with its probability, for `privkt predict`."""

    label: str
    probability: float


def client_step(function: F | None = None, *, once: bool = False) -> Any:
    """Marks a method's step that runs at each client: (self, site[, received]) -> Release | Outcome | None."""
    return _mark(function, Side.CLIENT, once)


def server_step(function: F | None = None, *, once: bool = False) -> Any:
    """Marks a step that runs at the server: (self, site, {client: message}) -> {client: message} | None."""
    return _mark(function, Side.SERVER, once)


def _mark(function: Any, side: Side, once: bool) -> Any:
    def mark(f: Any) -> Any:
        title = (inspect.getdoc(f) or f.__name__).split("\n")[0].rstrip(".")
        setattr(f, _MARK, Step(f.__name__, side, once, title))
        return f

    return mark if function is None else mark(function)


class TransferMethod(ABC):  # noqa: B024  (its steps are what a subclass must define, and preflight says so)
    """Base of methods. Subclasses define `Config`, the roles they use, steps, `plan` and, where it fits, `predict`."""

    name: ClassVar[str] = ""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    client_roles: ClassVar[tuple[str, ...]] = ()
    server_roles: ClassVar[tuple[str, ...]] = ()
    #: Those of the roles above that a config may leave out; `site.models` then lacks them.
    optional_roles: ClassVar[tuple[str, ...]] = ()
    #: Those whose weights the method itself opens; a backend that has none on its machine is refused when planned.
    opened_roles: ClassVar[tuple[str, ...]] = ()
    #: Columns of Texts, beside text and label, that may cross; the gate refuses others by name.
    crossing_columns: ClassVar[tuple[str, ...]] = ()
    #: Settings that may be others when a run is resumed, each with the first step that reads it, while that step is
    #: done nowhere. What the step stores in `site.state` before it ends must not follow from them. Never one that a
    #: charge, or anything before that step, follows from.
    read_by: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    @classmethod
    def steps(cls) -> tuple[Step, ...]:
        """The protocol, in order of definition (a base class's steps first)."""
        found: dict[str, Step] = {}
        for base in reversed(cls.__mro__):
            for name, member in vars(base).items():
                if (step := getattr(member, _MARK, None)) is not None:
                    found[name] = step
        return tuple(found.values())

    def plan(self, facts: PublicFacts, budget: Budget) -> Plan:
        """What one client's part will spend and send, from declared numbers alone (no data is read)."""
        return Plan()

    def check_rows(self, rows: Rows, facts: PublicFacts) -> None:  # noqa: B027  (a method may read any rows)
        """Refuses rows that the method's steps could not read, before anything is spent or stored.

        Called in the client's process with its private rows, and then with its held-out ones. Nothing of them may be
        kept, and a message names a column or a row's number, never what it holds.

        Raises: RefusedInput.
        """

    def context_needed(self, facts: PublicFacts) -> Mapping[str, int]:
        """{role: tokens that its longest prompt and answer will have together}, estimated from declared numbers alone.

        A run is refused, before anything is spent, where a model's context is known to be shorter.
        """
        return {}

    def public_data(self) -> Sequence[Any]:
        """Data blocks of the method's own config that its server reads as they are (`privkt.config.DataConfig`).

        A run is refused where one of them does not say `public: true`, or is a client's data or its evaluation rows.
        """
        return ()

    def comparison(self) -> MethodConfig:
        """The config with every baseline of the method's page switched on, for `privkt compare`."""
        return self.config

    def predict(
        self, models: Mapping[str, Backend], outcome: Outcome, texts: Sequence[str], labels: Sequence[str]
    ) -> list[Prediction]:
        """Labels for new texts from the final model of an Outcome."""
        raise TypeError(f"method {self.name!r} makes no model that predicts labels")

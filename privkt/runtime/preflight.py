"""Everything that can be refused before any budget is spent: config, method, models, data, plan.

`privkt plan` calls `prepare` too. Nothing is spent or written here, and only public facts go into messages.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from privkt.config import BudgetConfig, ClientConfig, DataConfig, RunConfig, describe
from privkt.contracts import (
    Backend,
    BackendContext,
    Dataset,
    DataSource,
    MethodConfig,
    NoProgress,
    Plan,
    Progress,
    PublicFacts,
    Rows,
    Side,
    Step,
    TransferMethod,
)
from privkt.plugins import PluginManager
from privkt.privacy import Budget, RefusedInput, assert_private_access, default_delta
from privkt.runtime.files import safe_name
from privkt.runtime.provenance import is_copy, need_public, overlap

SERVER = "server"
SCORED_ON_ITS_OWN = (
    "the evaluation rows may be the client's own data: scores of rows that were learnt from say little of others"
)
PUBLIC_COPY = (
    "the public data of {path!r} are byte for byte a file of this client's rows: both sides would read every row in "
    "clear. Stop, and name a public data set; it is not refused, since a refusal would tell others what is in the data"
)
Backends = dict[str, dict[str, Backend]]


class CachedRows:
    """Reads a data set once and keeps its rows in memory. Refused while a release is being post-processed."""

    def __init__(self, dataset: Dataset, what: str) -> None:
        self._dataset = dataset
        self._what = what
        self._rows: Rows | None = None

    def __call__(self) -> Rows:
        assert_private_access(self._what)
        if self._rows is None:
            self._rows = self._dataset.load()
        return self._rows


@dataclass(frozen=True)
class ClientSetup:
    """One client, checked. `budget` has no ledger yet: `privkt.runtime.accounts` adds it."""

    config: ClientConfig
    limits: BudgetConfig
    facts: PublicFacts
    budget: Budget
    plan: Plan
    rows: Callable[[], Rows]
    evaluation: Callable[[], Rows] | None

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True)
class Setup:
    """A run that may begin. `backends`: {site: {role: backend}}."""

    config: RunConfig
    method: type[TransferMethod]
    method_config: MethodConfig
    steps: tuple[Step, ...]
    clients: tuple[ClientSetup, ...]
    backends: Mapping[str, Mapping[str, Backend]]


def prepare(
    config: RunConfig,
    manager: PluginManager,
    *,
    progress: Progress | None = None,
    probe: bool = False,
    force: bool = False,
    resumed: bool = False,
) -> Setup:
    """Checks a whole run and makes its parts.

    `probe` asks remote models whether they answer (with fixed public
    strings); `force` lets private text go to a remote model, which the caller must record as an infinite spend; files
    of public data that a `resumed` run has read already are not read again.
    Raises: RefusedInput, naming the subject, the rule, what came and what to do.
    """
    method, method_config = _method(config, manager)
    steps = _protocol(method)
    for client in config.clients:
        if safe_name(f"client {client.name!r}", client.name) == SERVER:
            raise RefusedInput(f"client {SERVER!r}: is the name of the server's own site; rename the client")
    _roles(config, method)
    public = method(method_config).public_data()
    need_public(config.method, public, _owned(config))
    for block in () if resumed else public:
        _read_public(config.method, block, manager)
    backends = _backends(config, method, manager, progress or NoProgress(), None, force)
    clients = tuple(_client(config, client, method(method_config), manager) for client in config.clients)
    for made in clients:
        _need_context(method(method_config).context_needed(made.facts), {**backends[SERVER], **backends[made.name]})
    if probe:
        for roles in backends.values():
            for backend in roles.values():
                if backend.remote:
                    backend.probe()
    return Setup(config, method, method_config, steps, clients, backends)


def with_caches(
    setup: Setup, manager: PluginManager, progress: Progress, cache: Callable[[str], Path], *, force: bool
) -> Setup:
    """The same run with backends that cache in the run directory, which exists only after all checks.

    Guarantee: a client's backends cache only where its data is public; the server's see what was released.
    """
    return replace(setup, backends=_backends(setup.config, setup.method, manager, progress, cache, force))


def is_remote_for_private(setup: Setup, client: ClientSetup) -> tuple[str, ...]:
    """The remote roles that a client's private text would reach; not empty only in a forced run."""
    if all_public(setup.config, client.config):
        return ()
    return tuple(sorted(role for role, backend in setup.backends[client.name].items() if backend.remote))


def _method(config: RunConfig, manager: PluginManager) -> tuple[type[TransferMethod], MethodConfig]:
    method = manager.load("method", config.method)
    if not (isinstance(method, type) and issubclass(method, TransferMethod)):
        raise RefusedInput(
            f"method {config.method!r}: its plugin must name a TransferMethod; mend or remove the plugin"
        )
    block = config.method.rpartition(":")[2]
    try:
        return method, method.Config.model_validate(config.method_config)
    except ValidationError as error:
        raise RefusedInput(describe(block, error, method.Config)) from None


def _protocol(method: type[TransferMethod]) -> tuple[Step, ...]:
    steps = method.steps()
    if not steps:
        raise RefusedInput(f"method {method.name!r}: has no steps; mark them with client_step and server_step")
    for before, after in itertools.pairwise(steps):
        if after.once and not before.once:
            raise RefusedInput(
                f"method {method.name!r}: step {after.name!r} runs once for all seeds and cannot follow "
                f"{before.name!r}, which depends on the seed; mark both or neither"
            )
    return steps


def takes_received(method: type[TransferMethod], step: Step) -> bool:
    """Whether the step has a parameter for what came before, after `self` and `site`."""
    parameters = list(inspect.signature(getattr(method, step.name)).parameters.values())
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) > 2


def _roles(config: RunConfig, method: type[TransferMethod]) -> None:
    wanted = dict.fromkeys((*method.client_roles, *method.server_roles))
    given = list(config.models)
    for role in wanted:
        if role not in config.models and role not in method.optional_roles:
            near = difflib.get_close_matches(role, [g for g in given if g not in wanted], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the config has {', '.join(sorted(given)) or 'none'};"
            raise RefusedInput(
                f"models: method {method.name!r} needs a model for the role {role!r}; {hint} Add `{role}:` with a "
                "`backend` to `models`"
            )
    for role in given:
        if role not in wanted:
            raise RefusedInput(
                f"models: method {method.name!r} has no role {role!r}; it has {', '.join(wanted) or 'none'}; "
                "remove or rename it"
            )


def _need_context(needed: Mapping[str, int], backends: Mapping[str, Backend]) -> None:
    """A model that cannot hold what it will be asked is refused now, and not after the charge."""
    for role, tokens in needed.items():
        room = backends[role].context_tokens if role in backends else None
        if room is not None and room < tokens:
            raise RefusedInput(
                f"models.{role}: must take about {tokens} tokens, prompt and answer, and {backends[role].name!r} takes "
                f"{room}; choose a model with a longer context, or shorter texts and answers in the method's settings"
            )


def _backends(
    config: RunConfig,
    method: type[TransferMethod],
    manager: PluginManager,
    progress: Progress,
    cache: Callable[[str], Path] | None,
    force: bool,
) -> Backends:
    def made(site: str, side: Side, roles: tuple[str, ...], public: bool) -> dict[str, Backend]:
        found = {}
        # A client's models read private text: no answer to it, nor a hash of it as a key, may be kept.
        place = cache(site) if cache is not None and public else None
        for role in roles:
            if role not in config.models:
                continue  # an optional one
            model = config.models[role]
            context = BackendContext(role, str(side), place, progress)
            backend = manager.create("backend", model.backend, model.options, context)
            backend.check()
            if role in method.opened_roles and type(backend).weights_folder is Backend.weights_folder:
                raise RefusedInput(
                    f"models.{role}: method {method.name!r} works on this model's own weights, and backend "
                    f"{model.backend!r} has none on its machine; use the backend transformers for this role"
                )
            found[role] = backend
        return found

    backends = {SERVER: made(SERVER, Side.SERVER, method.server_roles, True)}
    for client in config.clients:
        public = all_public(config, client)
        mine = backends[client.name] = made(client.name, Side.CLIENT, method.client_roles, public)
        for role, backend in mine.items():
            if backend.remote and not public and not force:
                what = "its evaluation rows" if client.data.public else "private text"
                raise RefusedInput(
                    f"models.{role}: is remote, and client {client.name!r} would send it {what} in clear, which no "
                    "guarantee covers; use a backend of this process, declare the data and the evaluation data "
                    "`public: true` if they are, or force it and have an infinite spend recorded"
                )
    return backends


def held_out(config: RunConfig, client: ClientConfig) -> DataConfig | None:
    """The block of the rows that a client's arms are scored on."""
    return client.evaluation or (config.evaluation.data if config.evaluation else None)


def all_public(config: RunConfig, client: ClientConfig) -> bool:
    """Whether everything that a client's models read is declared public: its data, and its evaluation rows too."""
    rows = held_out(config, client)
    return client.data.public and (rows is None or rows.public)


def _owned(config: RunConfig) -> list[tuple[str, DataConfig]]:
    """Every block of rows that belong to a client, with the words that name it."""
    found: list[tuple[str, DataConfig]] = [(f"client {client.name!r}", client.data) for client in config.clients]
    return found + [("evaluation", rows) for client in config.clients if (rows := held_out(config, client)) is not None]


def source_of(data: DataConfig, labels: tuple[str, ...] | None = None) -> DataSource:
    """What the dataset plugin is given for a `data:` block."""
    return DataSource(data.source, data.text, data.label, data.labels or labels, data.path, data.options)


def _client(config: RunConfig, client: ClientConfig, method: TransferMethod, manager: PluginManager) -> ClientSetup:
    data, where = client.data, f"client {client.name!r}"
    scored = held_out(config, client)
    facts = PublicFacts(
        client.name,
        data.size,
        data.labels,
        columns=data.columns,
        held_out_columns=None if scored is None else scored.columns,
        roles=frozenset(config.models),
    )
    limits = client.budget or config.budget
    delta = default_delta(data.size) if limits.delta is None else limits.delta
    budget = Budget(
        limits.epsilon, delta, None, unit=limits.unit, neighbouring=limits.neighbouring, reproduce=limits.reproduce
    )
    budget.validate_for(data.size)
    with _names_block(where, "data"):
        dataset = manager.create("dataset", data.source, source_of(data))
        rows = CachedRows(dataset, f"rows of the data set {data.name!r}")
        found = _read(rows, where)
    _check_rows(found, data, where)
    evaluation, held_rows = None, None
    if scored is not None:
        with _names_block(where, "evaluation"):
            dataset = manager.create("dataset", scored.source, source_of(scored, data.labels))
            evaluation = CachedRows(dataset, f"evaluation rows of {where}")
            held_rows = _read(evaluation, where)
        if not len(held_rows):
            raise RefusedInput(f"{where}: evaluation data must have at least one row, got none; check its path")
    plan = method.plan(facts, budget)
    for block, mine in {"data": found, "evaluation": held_rows}.items():
        with _names_block(where, block):
            if mine is not None:
                _let_check(method, mine, facts, where)
    plan = replace(plan, warnings=(*plan.warnings, *_warnings(data, scored, method.public_data())))
    for block in method.public_data():
        if (said := PUBLIC_COPY.format(path=block.path)) in plan.warnings:
            warnings.warn(f"{where}: {said}", stacklevel=2)  # seen by whoever starts a run without a look at its plan
    return ClientSetup(client, limits, facts, budget, plan, rows, evaluation)


def _warnings(data: DataConfig, scored: DataConfig | None, public: Sequence[DataConfig]) -> list[str]:
    """What looks like a slip in a client's own blocks; it is told to the client, and decides nothing."""
    found = []
    if scored is not None and (overlap(scored, data) or is_copy(scored, data)):
        found.append(SCORED_ON_ITS_OWN)
    for mine in (data, scored):
        if mine is not None and not mine.public:
            found += [PUBLIC_COPY.format(path=block.path) for block in public if is_copy(block, mine)]
    return list(dict.fromkeys(found))


def _read_public(method: str, block: DataConfig, manager: PluginManager) -> None:
    """A file of public data that is missing or malformed is refused now, and not by the step that first reads it."""
    if block.path is None:
        return  # of a hub: what it takes to read it may be at the server alone
    with _names_block(method, f"public data {block.path!r}"):
        _read(manager.create("dataset", block.source, source_of(block)).load, method)


@contextmanager
def _names_block(where: str, block: str) -> Iterator[None]:
    """Says in a dataset plugin's own refusal which of a client's blocks it speaks of; its class stays."""
    try:
        yield
    except RefusedInput as error:
        said = str(error)
        if not said.startswith(f"{where}: "):
            said = said.removeprefix("data") if said.startswith("data (") else f": {said}"
            error.args = (f"{where}, {block}{said}",)
        elif block != "data":
            error.args = (f"{where}, {block}{said.removeprefix(where)}",)
        raise


def _read(rows: Callable[[], Rows], where: str) -> Rows:
    """The rows of any dataset plugin, whose own error text may quote them and is not repeated."""
    try:
        found = rows()
    except RefusedInput:
        raise
    except Exception as error:
        raise RefusedInput(
            f"{where}: data must be readable by its dataset plugin, which stopped with {_stopped(error)}; mend the "
            "file, or the plugin"
        ) from None
    for name, column in {"text": found.text, "label": found.label, **found.columns}.items():
        if not all(isinstance(value, str) for value in column or ()):
            raise RefusedInput(f"{where}: column {name!r} of the data must hold text only; mend the rows that do not")
    return found


def _let_check(method: TransferMethod, rows: Rows, facts: PublicFacts, where: str) -> None:
    """The method's own look at the rows; whatever else it raises may quote them, and is not repeated."""
    try:
        method.check_rows(rows, facts)
    except RefusedInput:
        raise
    except Exception as error:
        raise RefusedInput(
            f"{where}: method {method.name!r} must be able to check the rows, and stopped with {_stopped(error)}; mend "
            "the plugin"
        ) from None


def _stopped(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _check_rows(rows: Rows, data: Any, where: str) -> None:
    if not len(rows):
        raise RefusedInput(f"{where}: data must have at least one row, got none; check `path`")
    if len(rows) != data.size:
        raise RefusedInput(
            f"{where}: data.size must be the number of rows, since noise and delta follow from it; declared "
            f"{data.size}, found {len(rows)}; declare the true number or fix the file"
        )
    for name, column in {"label": rows.label, **rows.columns}.items():
        if column is not None and len(column) != len(rows):
            raise RefusedInput(f"{where}: column {name!r} must have as many rows as text; mend the dataset plugin")
    if data.labels is not None and rows.label is None:
        raise RefusedInput(
            f"{where}: data.label must name the column of labels when data.labels lists them, got none; add `label:`, "
            "or remove `labels`"
        )
    if data.label is None:
        return
    if data.labels is None:
        raise RefusedInput(
            f"{where}: data.labels must list the labels when `label` is given (the list is public, the counts are "
            "not); add it"
        )
    if len(set(data.labels)) < 2:
        raise RefusedInput(
            f"{where}: data.labels must name at least two classes, got {len(set(data.labels))}; add the others"
        )
    if len(set(data.labels)) != len(data.labels):
        raise RefusedInput(f"{where}: data.labels must be distinct; remove the repeated one")
    if rows.label is None or not set(rows.label) <= set(data.labels):
        raise RefusedInput(f"{where}: every row's label must be one of data.labels; declare it or mend the rows")
    if len(set(rows.label)) < 2:
        raise RefusedInput(
            f"{where}: data must have rows of at least two classes, got one; nothing can be learnt from it"
        )

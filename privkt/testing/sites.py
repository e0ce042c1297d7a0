"""Sites for tests: what a runtime gives a step, in memory, without a runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privkt.contracts import (
    Backend,
    ClientId,
    ClientSite,
    Message,
    Model,
    PrivateData,
    PublicFacts,
    Rows,
    ServerSite,
    State,
)
from privkt.privacy import Budget, Release, default_delta
from privkt.runtime.files import safe_name

SaveHook = Callable[[str, Release[Any]], None]


class MemoryState:
    """`privkt.contracts.State` in a dictionary: what is saved is copied, what is loaded is the copy.

    `on_release(name, release)` is called after each `save_release`; MethodSuite takes its snapshots there.
    """

    def __init__(self, stored: Mapping[tuple[str, str], Any] | None = None, on_release: SaveHook | None = None) -> None:
        self.stored: dict[tuple[str, str], Any] = dict(stored or {})
        self.on_release = on_release

    def save(self, name: str, value: Message) -> None:
        """Stores a message; the same name again replaces it."""
        if isinstance(value, Release):
            raise TypeError(f"state {name!r}: must be a message, got a Release; use save_release")
        kept = _Files.of(value.folder) if isinstance(value, Model) else copy.deepcopy(value)
        self.stored["message", _named(name)] = kept

    def load(self, name: str) -> Any:
        """The message stored under `name`, a model's files where they were; KeyError names what there is."""
        found = self._get("message", name)
        return found.written() if isinstance(found, _Files) else found

    def save_json(self, name: str, value: Any) -> None:
        """Stores JSON values beside the messages."""
        import json

        self.stored["values", _named(name)] = json.loads(json.dumps(value))

    def load_json(self, name: str) -> Any:
        """The JSON values stored under `name`; KeyError names what there is."""
        return copy.deepcopy(self._get("values", name))

    def save_release(self, name: str, release: Any) -> None:
        """Stores a Release."""
        if not isinstance(release, Release):
            raise TypeError(f"state {name!r}: must be a Release, got {type(release).__name__}; use save for a message")
        self.stored["release", _named(name)] = release
        if self.on_release is not None:
            self.on_release(name, release)

    def load_release(self, name: str) -> Any:
        """The Release stored under `name`; KeyError names what there is."""
        return self._get("release", name)

    def names(self) -> tuple[str, ...]:
        """Everything stored."""
        return tuple(sorted({name for _, name in self.stored}))

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def _get(self, kind: str, name: str) -> Any:
        if (kind, name) not in self.stored:
            raise KeyError(f"state has no {kind} {name!r}; it has {', '.join(self.names()) or 'nothing'}")
        return self.stored[kind, name]


@dataclass(frozen=True)
class _Files:
    """A model's files, which outlive the step's folder as they do on disk."""

    folder: Path
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> _Files:
        return cls(folder, {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})

    def written(self) -> Model:
        for name, data in self.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
        return Model(self.folder)


def _named(name: str) -> str:
    return safe_name("state name", name)  # on disk a name is part of a file's


def private_data(rows: Rows, *, name: str = "data", labels: tuple[str, ...] | None = None) -> PrivateData:
    """A private handle on rows in memory; its declared size is their number, its labels those that occur."""
    found = labels if labels is not None else None if rows.label is None else tuple(sorted(set(rows.label)))
    return PrivateData(name=name, size=len(rows), labels=found, reader=lambda: rows, fingerprint="in memory")


def client_site(
    rows: Rows,
    folder: Path,
    *,
    models: Mapping[str, Backend] | None = None,
    labels: tuple[str, ...] | None = None,
    budget: Budget | None = None,
    state: State | None = None,
    evaluation: Rows | None = None,
    seed: int = 0,
    name: str = "client",
) -> ClientSite:
    """A client whose private rows are `rows`; its budget charges no ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    return ClientSite(
        models=dict(models or {}),
        state=MemoryState() if state is None else state,
        folder=folder,
        seed=seed,
        id=name,
        data=private_data(rows, name=f"{name}-data", labels=labels),
        budget=budget or Budget(epsilon=4.0, delta=default_delta(len(rows))),
        run_id="test-run",
        data_set_id="test-data-set",
        evaluation=None if evaluation is None else lambda: evaluation,
    )


def server_site(
    clients: Mapping[ClientId, PublicFacts],
    folder: Path,
    *,
    models: Mapping[str, Backend] | None = None,
    state: State | None = None,
    seed: int = 0,
) -> ServerSite:
    """A server that knows what `clients` declare."""
    folder.mkdir(parents=True, exist_ok=True)
    return ServerSite(
        models=dict(models or {}),
        state=MemoryState() if state is None else state,
        folder=folder,
        seed=seed,
        clients=dict(clients),
    )

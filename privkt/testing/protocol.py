"""Plays a method's steps in one process, in memory: what MethodSuite watches."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privkt.contracts import (
    Adapter,
    ClientId,
    ClientSite,
    Message,
    MethodConfig,
    Model,
    Outcome,
    Parcel,
    ServerSite,
    Side,
    SoftPrompt,
    State,
    Step,
    Texts,
    TransferMethod,
)
from privkt.privacy import Release, private_access_locked
from privkt.runtime.wire import encode
from privkt.testing.sites import MemoryState


def run_step(method: type[TransferMethod], config: MethodConfig, step: Step, site: Any, received: Any) -> Any:
    """One step of a new object, as a runtime calls it; a server's step runs with private access locked."""
    bound = getattr(method(config), step.name)
    takes_received = len(inspect.signature(bound).parameters) > 1
    arguments = (site, received) if takes_received else (site,)
    if step.side is Side.CLIENT:
        return bound(*arguments)
    with private_access_locked():
        return bound(*arguments)


def crossing_bytes(method: type[TransferMethod], message: Message) -> bytes:
    """A message as it would cross. Raises WireError for what has no encoding or may not cross."""
    return encode(message, method.crossing_columns)


def same_origin(release: Release[Any], other: Release[Any]) -> bool:
    """Whether both are one draw, perhaps post-processed: equal charge, event and provenance."""
    return (release.charge, release.event, release.provenance) == (other.charge, other.event, other.provenance)


@dataclass
class Run:
    """A protocol played to the end.

    `released`: {step: {client: release}}; `crossed`: the bytes of those that a server step received; `answers`: the
    server's; `outcomes`: what clients keep.
    """

    released: dict[str, dict[ClientId, Release[Any]]] = field(default_factory=dict)
    crossed: dict[str, dict[ClientId, bytes]] = field(default_factory=dict)
    answers: dict[str, dict[ClientId, Message]] = field(default_factory=dict)
    outcomes: dict[ClientId, Outcome] = field(default_factory=dict)


_KEPT = (Release, Texts, Adapter, SoftPrompt, Parcel, Model, Outcome, type(None))
Before = Callable[[Step, ClientSite, Any], None]


def play(
    method: type[TransferMethod],
    config: MethodConfig,
    clients: Mapping[ClientId, ClientSite],
    server: ServerSite,
    before_client: Before | None = None,
) -> Run:
    """Plays every step in order. Raises AssertionError when something would cross that must not.

    `before_client(step, site, received)` is called before each client step.
    """
    run, steps = Run(), method.steps()
    received: dict[str, Any] = dict.fromkeys(clients)
    arrived: Any = {}
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        crosses = following is not None and following.side is not step.side
        if step.side is Side.SERVER:
            answer = run_step(method, config, step, server, arrived)
            run.answers[step.name] = _checked_answer(method, step, answer, clients)
            arrived = answer
            if crosses:
                received = {name: run.answers[step.name].get(name) for name in clients}
            continue
        for name, site in clients.items():
            if before_client is not None:
                before_client(step, site, received[name])
            result = run_step(method, config, step, site, received[name])
            received[name] = getattr(result, "payload", result)
            if isinstance(result, Outcome):
                run.outcomes[name] = result
            if isinstance(result, Release):
                run.released.setdefault(step.name, {})[name] = result
            if crosses:
                assert isinstance(result, Release), (
                    f"step {step.name!r}: a server step follows, so it must return a Release, got "
                    f"{type(result).__name__}; an Outcome or a plain message never crosses"
                )
                run.crossed.setdefault(step.name, {})[name] = crossing_bytes(method, result.payload)
            else:
                assert isinstance(result, _KEPT), (
                    f"step {step.name!r}: must return a Release, a message or None, got {type(result).__name__}"
                )
        arrived = dict(received)
    return run


def _checked_answer(
    method: type[TransferMethod], step: Step, answer: Any, clients: Mapping[ClientId, ClientSite]
) -> dict[ClientId, Message]:
    if answer is None:
        return {}
    assert isinstance(answer, Mapping), (
        f"step {step.name!r}: a server step returns {{client: message}} or None, got {type(answer).__name__}"
    )
    strangers = sorted(set(answer) - set(clients))
    assert not strangers, f"step {step.name!r}: answers clients that do not exist: {', '.join(map(str, strangers))}"
    for message in answer.values():
        crossing_bytes(method, message)
    return dict(answer)


@dataclass
class Checkpoint:
    """A client's state and folder at the last release that a step paid for, without anything derived from it."""

    stored: dict[tuple[str, str], Any]
    folder: Path


class Recorder:
    """Watches one client step and remembers where it could be resumed from after its last paid release."""

    def __init__(self, state: MemoryState, folder: Path) -> None:
        self._before = dict(state.stored)
        self._folder = folder
        self._copies = Path(tempfile.mkdtemp(prefix="privkt-checkpoint-"))
        self.roots: dict[str, Release[Any]] = {}
        self.checkpoint = self._taken()
        state.on_release = self._saved

    def earlier(self) -> list[Release[Any]]:
        """The releases that earlier steps had stored."""
        return [value for (kind, _), value in self._before.items() if kind == "release"]

    def knows(self, release: Release[Any]) -> bool:
        """Whether `release` comes from one that is stored."""
        return any(same_origin(release, other) for other in [*self.roots.values(), *self.earlier()])

    def restore(self, folder: Path) -> MemoryState:
        """The checkpoint's state, and its files in place of those of `folder`."""
        shutil.rmtree(folder)
        shutil.copytree(self.checkpoint.folder, folder)
        return MemoryState(self.checkpoint.stored)

    def close(self) -> None:
        """Deletes the copies."""
        shutil.rmtree(self._copies)

    def _saved(self, name: str, release: Release[Any]) -> None:
        if not self.knows(release):
            self.roots[name] = release
            self.checkpoint = self._taken()

    def _taken(self) -> Checkpoint:
        copied = self._copies / str(len(self.roots))
        shutil.copytree(self._folder, copied, dirs_exist_ok=True)
        roots = {("release", name): release for name, release in self.roots.items()}
        return Checkpoint({**self._before, **roots}, copied)


def memory_of(state: State) -> MemoryState:
    """The same state, known to be in memory."""
    assert isinstance(state, MemoryState), "the suite's sites keep their state in a MemoryState"
    return state

"""MethodSuite: a method's protocol, its config, and that private data reaches the server only through releases."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from privkt.contracts import (
    Backend,
    ClientSite,
    MethodConfig,
    Plan,
    PublicFacts,
    Rows,
    ServerSite,
    Side,
    Step,
    TransferMethod,
)
from privkt.plugins import PluginManager, get_manager
from privkt.privacy import Budget, Release, private_access_locked
from privkt.testing.protocol import Recorder, Run, crossing_bytes, memory_of, play, run_step, same_origin
from privkt.testing.sites import client_site, server_site


@dataclass
class _Watched:
    """A client step that was about to run: what it was given, and what it stored while running."""

    step: Step
    site: ClientSite
    received: Any
    recorder: Recorder


class MethodSuite(ABC):
    """Subclass in a test module: `name` finds the plugin, the methods give a config, rows and small models.

    `rows(0)` and `rows(1)` have the same length and labels but other contents. Texts may hold `canary`; what crosses
    must not, unless `canary` is "" (a method that releases perturbed words may let one through by chance).
    """

    name: str = ""
    labels: tuple[str, ...] | None = None
    clients: tuple[str, ...] = ("a", "b")
    canary: str = "canary-2946"

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """The method's own block of a config, small enough to run in seconds."""

    @abstractmethod
    def rows(self, variant: int) -> Rows:
        """A client's private rows, variant 0 or 1."""

    def models(self, site: str) -> Mapping[str, Backend]:
        """Fresh backends for the roles of `site`, a client's name or "server"."""
        return {}

    def evaluation(self) -> Rows | None:
        """Held-out rows, if the method scores something."""
        return None

    def budget(self) -> Budget | None:
        """The clients' budget; by default epsilon 4 without a ledger."""
        return None

    def manager(self) -> PluginManager:
        """Where the plugin is looked up."""
        return get_manager()

    @pytest.fixture
    def method(self) -> type[TransferMethod]:
        return self.manager().load("method", self.name)

    @pytest.fixture
    def parsed(self, method: type[TransferMethod]) -> MethodConfig:
        return method.Config.model_validate(dict(self.config()))

    def client(self, name: str, variant: int, folder: Path) -> ClientSite:
        """A client with the rows of a variant, and nothing else that differs between variants."""
        return client_site(
            self.rows(variant),
            folder,
            models=self.models(name),
            labels=self.labels,
            budget=self.budget(),
            evaluation=self.evaluation(),
            name=name,
        )

    def server(self, folder: Path) -> ServerSite:
        facts = {name: PublicFacts(name, len(self.rows(0)), self.labels) for name in self.clients}
        return server_site(facts, folder, models=self.models("server"))

    def test_the_declaration_agrees_with_the_class(self, method: type[TransferMethod]) -> None:
        spec = self.manager().find("method", self.name).spec
        assert issubclass(method, TransferMethod)
        assert method.name == spec.name
        assert spec.summary, "the listing needs one line that says what it does"

    def test_the_config_documents_itself(self, method: type[TransferMethod], parsed: MethodConfig) -> None:
        schema = json.loads(json.dumps(method.Config.model_json_schema()))
        assert schema["type"] == "object"
        assert schema.get("additionalProperties") is False, "unknown keys must be refused (extra='forbid')"
        assert set(self.config()) <= set(schema["properties"])
        again = method.Config.model_validate(json.loads(parsed.model_dump_json()))
        assert again == parsed, "a config must survive being written as JSON: run directories keep it so"

    def test_unknown_keys_are_refused(self, method: type[TransferMethod]) -> None:
        with pytest.raises(ValidationError, match="no_such_key"):
            method.Config.model_validate({**self.config(), "no_such_key": 1})

    def test_steps_alternate_sensibly(self, method: type[TransferMethod]) -> None:
        steps = method.steps()
        assert steps, "a method has at least one step"
        assert any(step.side is Side.CLIENT for step in steps), "without a client step no private data is used"
        for step in steps:
            assert step.title != step.name, f"step {step.name!r} needs a docstring: progress shows its first line"
        for before, after in pairwise(steps):
            assert before.once or not after.once, (
                f"step {after.name!r} runs once for all seeds, {before.name!r} does not"
            )
        roles = {*method.client_roles, *method.server_roles}
        assert set(method.optional_roles) <= roles, "optional_roles must be among the roles"

    def test_the_plan_reads_no_data(self, method: type[TransferMethod], parsed: MethodConfig, tmp_path: Path) -> None:
        site = self.client(self.clients[0], 0, tmp_path)
        facts = PublicFacts(site.id, site.data.size, self.labels)
        with private_access_locked():
            plan = method(parsed).plan(facts, site.budget)
            again = method(parsed).plan(facts, site.budget)
        assert isinstance(plan, Plan)
        assert plan == again, "a plan follows from declared numbers alone, so it does not change"
        steps = method.steps()
        if any(before.side is Side.CLIENT and after.side is Side.SERVER for before, after in pairwise(steps)):
            assert plan.crosses, "the plan must say what crosses"

    def test_the_protocol_runs_and_only_releases_cross(
        self, method: type[TransferMethod], parsed: MethodConfig, tmp_path: Path
    ) -> None:
        run = self._play(method, parsed, tmp_path)
        for step, payloads in run.crossed.items():
            for client, data in payloads.items():
                assert run.released[step][client].guarantee.is_private, f"step {step!r} crosses with guarantee none"
                assert not self.canary or self.canary.encode() not in data, f"private text crossed in step {step!r}"
        assert run.outcomes or run.answers, "the protocol ends with nothing: neither an Outcome nor a server's answer"

    def test_post_processing_does_not_look_at_private_data_again(
        self, method: type[TransferMethod], parsed: MethodConfig, tmp_path: Path
    ) -> None:
        with self._watched(method, parsed, tmp_path) as (seen, run):
            compared = 0
            for watched in seen:
                step, client = watched.step.name, watched.site.id
                if client in run.crossed.get(step, {}):
                    compared += 1
                    self._resumed_twice(method, parsed, watched, run.released[step][client])
            assert compared or not run.crossed

    def _resumed_twice(
        self, method: type[TransferMethod], parsed: MethodConfig, watched: _Watched, first: Release[Any]
    ) -> None:
        step, recorder = watched.step.name, watched.recorder
        assert recorder.knows(first), (
            f"step {step!r} returned a Release that it never stored: after a crash it would draw and pay again; call "
            "site.state.save_release before returning, and start from it when it is there"
        )
        found = []
        for variant in (0, 1):
            site = self.client(watched.site.id, variant, watched.site.folder)
            site.state = recorder.restore(watched.site.folder)
            again = Recorder(memory_of(site.state), site.folder)
            try:
                result = run_step(method, parsed, watched.step, site, watched.received)
                assert not again.roots, (
                    f"step {step!r} paid for {', '.join(again.roots)} again although its release was stored"
                )
            finally:
                again.close()
            assert isinstance(result, Release), f"step {step!r} gives no Release when it starts from a stored one"
            assert same_origin(result, first), f"step {step!r}: charge, event or provenance changed when run again"
            assert result.guarantee == first.guarantee
            found.append(crossing_bytes(method, result.payload))
        assert found[0] == found[1], (
            f"step {step!r}: one stored release with other private data behind it gave other bytes, so private data "
            "(or unseeded randomness) reaches the post-processing"
        )

    def _play(self, method: type[TransferMethod], parsed: MethodConfig, folder: Path, **options: Any) -> Run:
        clients = {name: self.client(name, 0, folder / name) for name in self.clients}
        return play(method, parsed, clients, self.server(folder / "server"), **options)

    @contextmanager
    def _watched(
        self, method: type[TransferMethod], parsed: MethodConfig, folder: Path
    ) -> Iterator[tuple[list[_Watched], Run]]:
        seen: list[_Watched] = []

        def watch(step: Step, site: ClientSite, received: Any) -> None:
            seen.append(_Watched(step, site, received, Recorder(memory_of(site.state), site.folder)))

        try:
            yield seen, self._play(method, parsed, folder, before_client=watch)
        finally:
            for watched in seen:
                watched.recorder.close()

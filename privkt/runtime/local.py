"""The local runtime: plays every client and the server in one process, step by step, resumable at each."""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privkt.config import RunConfig
from privkt.contracts import (
    BackendError,
    ClientSite,
    NoProgress,
    PrivateData,
    Progress,
    ServerSite,
    Side,
    Step,
)
from privkt.plugins import PluginManager, get_manager
from privkt.privacy import PrivacyError, RefusedInput
from privkt.runtime import wire
from privkt.runtime.accounts import Account, check_clients, left_of, open_account, scope_id, with_ledger
from privkt.runtime.errors import RunError, RunFailed
from privkt.runtime.gate import Gate, Review
from privkt.runtime.preflight import (
    SERVER,
    ClientSetup,
    Setup,
    is_remote_for_private,
    prepare,
    takes_received,
    with_caches,
)
from privkt.runtime.results import RunResult, stored_outcomes
from privkt.runtime.run_directory import CONFIRMED, HELD_OUT, RunDirectory, scope_name


@dataclass(frozen=True)
class _Running:
    """A run that passed its checks."""

    run: RunDirectory
    setup: Setup
    accounts: Mapping[str, Account]
    gate: Gate

    def has_spent(self) -> bool:
        """Whether any ledger holds a charge of this run."""
        return any(account.has_charge_of(self.run.run_id) for account in self.accounts.values())


class LocalRuntime:
    """Runs one config in one directory.

    `run_directory`: a folder (new, empty, or an interrupted run's) or a RunDirectory. With a folder, nothing is made
    there before every check passed. `review`: asked before anything crosses. `force`: lets unprotected text leave and
    records an infinite spend. `data_changed`: accepts that the data behind a name changed since its last charge.
    `same_data_confirmed`: accepts a new name for data that another ledger counts already.
    """

    def __init__(
        self,
        config: RunConfig,
        run_directory: RunDirectory | Path | str,
        manager: PluginManager | None = None,
        progress: Progress | None = None,
        review: Review | None = None,
        force: bool = False,
        data_changed: bool = False,
        same_data_confirmed: bool = False,
    ) -> None:
        self.config = config
        self._place = run_directory
        self._manager = manager or get_manager()
        self._progress = progress or NoProgress()
        self._review = review
        self._force = force
        self._data_changed = data_changed
        self._same_data_confirmed = same_data_confirmed

    def preflight(self, *, probe: bool = False, resumed: bool = False) -> Setup:
        """Every check that spends and writes nothing. Raises RefusedInput."""
        said = {"probe": probe, "force": self._force, "resumed": resumed}
        return prepare(self.config, self._manager, progress=self._progress, **said)

    def run(self) -> RunResult:
        """Runs what is not done yet.

        Guarantee: every spend is in its ledger before private data is used for it, and everything that crossed did so
        through the gate. After a crash at any moment the same call goes on with the same spend.
        Raises: RefusedInput, before any budget is spent by this call or by the ledger's own refusal; RunFailed, with
        the command that resumes; KeyboardInterrupt, resumable too.
        """
        begun = time.monotonic()
        run = self._existing()
        if run is not None:
            method = self._manager.load("method", run.config().method)
            with run.locked():
                if changed := run.check_config(self.config, method.read_by):
                    self.preflight()
                    run.take_config(self.config, changed)
                return self._run(run, begun)
        assert not isinstance(self._place, RunDirectory)
        RunDirectory.need_free(self._place)
        setup, accounts = self._checked(None)
        run = RunDirectory.create(self._place, self.config)
        with run.locked():
            if self._same_data_confirmed:
                run.event(CONFIRMED)  # whoever resumes before the first charge need not say it again
            return self._run(run, begun, setup, accounts)

    def _existing(self) -> RunDirectory | None:
        if isinstance(self._place, RunDirectory):
            return self._place
        return RunDirectory.open(self._place) if RunDirectory.is_run(self._place) else None

    def _checked(self, run: RunDirectory | None) -> tuple[Setup, dict[str, Account]]:
        heads = run.heads() if run else {}
        setup = self.preflight(probe=True, resumed=run is not None)
        before = run is not None and any(event["event"] == CONFIRMED for event in run.events())
        confirmed = self._same_data_confirmed or before
        said = {"data_changed": self._data_changed, "same_data_confirmed": confirmed}
        run_id = run.run_id if run else ""
        check_clients(setup.clients, same_data_confirmed=confirmed)
        for client in setup.clients:  # all of them before the first ledger is made
            left_of(client, run_id=run_id, **said)
        accounts = {
            client.name: open_account(client, run_id=run_id, head=heads.get(client.config.data.name), **said)
            for client in setup.clients
        }
        return setup, accounts

    def _run(
        self,
        run: RunDirectory,
        begun: float,
        setup: Setup | None = None,
        accounts: dict[str, Account] | None = None,
    ) -> RunResult:
        if self._review is not None:
            run.want_review()
        elif run.wants_review:
            raise RefusedInput(
                f"run directory {run.path}: the run began with a reviewer, and goes on only with one; resume with: "
                f"privkt run --resume {run.path} --review"
            )
        if setup is None or accounts is None:
            with self._failures(run, "checks"):
                setup, accounts = self._checked(run)
        setup = with_caches(setup, self._manager, self._progress, run.cache, force=self._force)
        run.event("running", resumed=any(e["event"] == "running" for e in run.events()))
        gate = Gate(
            run,
            accounts,
            self._manager,
            columns=setup.method.crossing_columns,
            review=self._review,
            in_process=not any(b.remote for b in setup.backends[SERVER].values()),
            force=self._force,
        )
        running = _Running(run, setup, accounts, gate)
        for client in setup.clients:
            account = accounts[client.name]
            run.keep_head(account.ledger.name, account.ledger.head())
            if client.evaluation is not None:
                run.event(HELD_OUT, client=client.name, rows=len(client.evaluation()))
            if roles := is_remote_for_private(setup, client):
                account.charge_unprotected(
                    run.run_id, "unprotected: remote model", f"raw text to remote {', '.join(roles)}"
                )
        self._all_steps(running)
        run.event("finished")
        return RunResult(
            path=run.path,
            run_id=run.run_id,
            outcomes=stored_outcomes(run, setup.method),
            plans={client.name: client.plan for client in setup.clients},
            totals={name: account.total() for name, account in accounts.items()},
            crossed=tuple(gate.manifest()),
            seconds=time.monotonic() - begun,
        )

    def _all_steps(self, running: _Running) -> None:
        steps, seeds = running.setup.steps, self.config.seeds
        once = [i for i, step in enumerate(steps) if step.once]
        rest = [i for i, step in enumerate(steps) if not step.once]
        work = [(i, None) for i in once] + [(i, seed) for seed in seeds for i in rest]
        clients = len(running.setup.clients)
        total = sum(clients if steps[i].side is Side.CLIENT else 1 for i, _ in work)
        task = self._progress.task(f"{self.config.method}: steps", total, "steps")
        for i, seed in work:
            step = steps[i]
            if step.side is Side.SERVER:
                self._server_step(running, i, seed)
                task.advance(1, step.title)
                continue
            for client in running.setup.clients:
                self._client_step(running, i, seed, client)
                task.advance(1, f"{client.name}: {step.title}")

    def _client_step(self, running: _Running, index: int, seed: int | None, client: ClientSetup) -> None:
        run, steps = running.run, running.setup.steps
        step, name = steps[index], client.name
        if run.is_done(name, step.name, seed):
            run.clear_step(name, step.name, seed)  # a crash may have come between the two
            return
        results = run.results(name, seed)
        with self._step(running, name, step, seed):
            if not results.has_result(step.name):
                results.save_result(step.name, self._call(running, index, seed, name, self._client_site))
            if (folder := results.model_folder(step.name)) is not None:
                run.show_model(name, seed, folder)
            following = steps[index + 1] if index + 1 < len(steps) else None
            if following is not None and following.side is Side.SERVER:
                data = running.gate.send(name, step.name, results.load_result(step.name), seed=seed)
                message = wire.decode(data, running.setup.method.crossing_columns)
                run.event("crossed", site=name, step=step.name, scope=scope_name(seed), size_bytes=len(data))
                run.results(SERVER, seed).deliver(step.name, name, message)

    def _server_step(self, running: _Running, index: int, seed: int | None) -> None:
        run, steps = running.run, running.setup.steps
        step = steps[index]
        if run.is_done(SERVER, step.name, seed):
            run.clear_step(SERVER, step.name, seed)
            return
        results = run.results(SERVER, seed)
        with self._step(running, SERVER, step, seed):
            if not results.has_result(step.name):
                value = self._call(running, index, seed, SERVER, self._server_site)
                if strange := sorted(set(value or ()) - {c.name for c in running.setup.clients}):
                    raise RunFailed(f"step {step.name!r}: answers for {strange[0]!r}, which is no client")
                results.save_result(step.name, value)
            answers = results.load_result(step.name) or {}
            following = steps[index + 1] if index + 1 < len(steps) else None
            if following is not None and following.side is Side.CLIENT:
                columns = running.setup.method.crossing_columns
                for client, message in answers.items():
                    # Through bytes, as it would come over a network: what cannot cross must not work here either.
                    arrived = wire.decode(wire.encode(message, columns), columns)
                    run.results(client, seed).deliver(step.name, SERVER, arrived)

    def _call(self, running: _Running, index: int, seed: int | None, site_name: str, make_site: Any) -> Any:
        setup, step = running.setup, running.setup.steps[index]
        method = setup.method(setup.method_config)
        site = make_site(running, step, seed, site_name)
        arguments = [site]
        if takes_received(setup.method, step):
            arguments.append(self._received(running, index, seed, site_name))
        try:
            return getattr(method, step.name)(*arguments)
        finally:
            for backend in setup.backends[site_name].values():
                backend.release_memory()

    def _received(self, running: _Running, index: int, seed: int | None, site: str) -> Any:
        steps = running.setup.steps
        here = steps[index]
        if index == 0:
            return {} if here.side is Side.SERVER else None
        before = steps[index - 1]
        results = running.run.results(site, None if before.once else seed)
        if before.side is here.side:
            value = results.load_result(before.name)
            return getattr(value, "payload", value)
        if here.side is Side.CLIENT:
            return results.received(before.name, SERVER)
        clients = [client.name for client in running.setup.clients]
        return {client: results.received(before.name, client) for client in clients}

    def _client_site(self, running: _Running, step: Step, seed: int | None, name: str) -> ClientSite:
        run, account = running.run, running.accounts[name]
        client = next(c for c in running.setup.clients if c.name == name)
        data = client.config.data
        return ClientSite(
            models=running.setup.backends[name],
            state=run.state(name, seed),
            folder=run.step_folder(name, step.name, seed),
            seed=self.config.seeds[0] if seed is None else seed,
            progress=self._progress,
            id=name,
            data=PrivateData(
                data.name,
                data.size,
                data.labels,
                client.rows,
                fingerprint=account.fingerprint,
                data_changed=self._data_changed,
                public=data.public,
            ),
            budget=with_ledger(client.budget, account),
            run_id=scope_id(run.run_id, scope_name(seed)),
            data_set_id=account.ledger.data_set_id,
            evaluation=client.evaluation,
        )

    def _server_site(self, running: _Running, step: Step, seed: int | None, name: str) -> ServerSite:
        run = running.run
        return ServerSite(
            models=running.setup.backends[SERVER],
            state=run.state(SERVER, seed),
            folder=run.step_folder(SERVER, step.name, seed),
            seed=self.config.seeds[0] if seed is None else seed,
            progress=self._progress,
            clients={client.name: client.facts for client in running.setup.clients},
        )

    @contextmanager
    def _step(self, running: _Running, site: str, step: Step, seed: int | None) -> Iterator[None]:
        run, facts = running.run, {"site": site, "step": step.name, "scope": scope_name(seed)}
        begun = time.monotonic()
        run.event("began", **facts)
        with self._failures(run, f"{site}, step {step.name!r}", running.has_spent, **facts):
            yield
            run.mark_done(site, step.name, seed)
            run.clear_step(site, step.name, seed)
            if site in running.accounts:
                ledger = running.accounts[site].ledger
                run.keep_head(ledger.name, ledger.head())
            run.event("done", **facts, seconds=round(time.monotonic() - begun, 3))

    @contextmanager
    def _failures(
        self, run: RunDirectory, place: str, has_spent: Callable[[], bool] = lambda: False, **facts: str
    ) -> Iterator[None]:
        """Turns what goes wrong into RunFailed with a message that quotes nothing private.

        A refusal stays one while the run has spent nothing; afterwards it is a failure half-way, which can be resumed.
        What an attempt took is noted, for a step that is resumed cost all of its attempts.
        """
        begun = time.monotonic()

        def note(what: str, **more: str) -> None:
            _note(run, what, **facts, **more, seconds=round(time.monotonic() - begun, 3))

        try:
            yield
        except KeyboardInterrupt:
            note("interrupted")
            raise
        except RefusedInput as error:
            note("refused", error=type(error).__name__)
            if not has_spent():
                raise
            raise RunFailed(f"{place}: {error}\nwhat is done is kept; resume with: {_resume(run)}") from None
        except Exception as error:
            note("failed", error=type(error).__name__)
            failed = RunFailed(f"{place}: {_reason(error)}\nwhat is done is kept; resume with: {_resume(run)}")
            raise failed from (error if os.environ.get("PRIVKT_DEBUG") else None)


def _resume(run: RunDirectory) -> str:
    return f"privkt run --resume {run.path}{' --review' if run.wants_review else ''}"


def _note(run: RunDirectory, what: str, **facts: str | float) -> None:
    try:
        run.event(what, **facts)
    except OSError:
        return  # the disk is full, which the error that is under way says


def _reason(error: Exception) -> str:
    # privkt's own errors quote nothing private, by the rule of the house; a stranger's class may.
    if isinstance(error, RunError | BackendError | PrivacyError) or type(error).__module__.startswith("privkt."):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room"
    if isinstance(error, MemoryError) or "outofmemory" in type(error).__name__.lower():
        return "out of memory; a smaller microbatch_size needs less, or free memory"
    if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
        return "out of memory; a smaller microbatch_size needs less, or free memory"
    # The text of an unknown exception may quote a record: only its kind and place are shown.
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    code = f" (errno {error.errno})" if isinstance(error, OSError) and error.errno else ""
    return (
        f"an unexpected {type(error).__name__}{code}{where}; its text may hold private data and is not shown, "
        "PRIVKT_DEBUG=1 shows it"
    )


__all__ = ["LocalRuntime", "RunResult"]

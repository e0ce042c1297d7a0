"""A run on disk, in two halves: `outbound/` holds what crossed, `private/` everything that must not.

outbound/   manifest.jsonl  cards/  <client>/<step>.<scope>.arrow|.safetensors
private/    run.json  config.json  events.jsonl  heads.json  lock  state/  done/  checkpoints/  cache/  models/
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import privkt
from privkt.config import RunConfig, describe
from privkt.privacy import RefusedInput
from privkt.runtime.errors import Damaged
from privkt.runtime.files import (
    append_line,
    json_lines,
    make_folder,
    read_json,
    safe_name,
    sync_folder,
    write_json,
)
from privkt.runtime.state import DiskState
from privkt.runtime.steps import StepResults

_FORMAT = 1
SHARED = "shared"
HELD_OUT = "held out"  # the event that says how many rows a client is scored on
CONFIRMED = "new name confirmed"  # the event that says that the rows may be the same under another name


def scope_name(seed: int | None) -> str:
    """The folder of a seed's results; None: what all seeds share."""
    return SHARED if seed is None else f"seed-{seed}"


def _is_finished(path: Path) -> bool:
    return any(event["event"] == "finished" for event in json_lines(path / "private" / "events.jsonl"))


class RunDirectory:
    """One run's folder. Make one with `create` or `open`."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        self.outbound = path / "outbound"
        self.private = path / "private"
        self.run_id: str = record["run_id"]

    @classmethod
    def create(cls, path: Path | str, config: RunConfig) -> RunDirectory:
        """A new run in `path`, which must not exist or be empty.

        Guarantee: `path` is a whole run directory or untouched; its id is random.
        Raises: RefusedInput.
        """
        path = Path(path).absolute()
        cls.need_free(path)
        record = {
            "format": _FORMAT,
            "privkt": privkt.__version__,
            "run_id": secrets.token_hex(16),
            "created": _now(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            make_folder(draft / "outbound" / "cards")
            make_folder(draft / "private")
            write_json(draft / "private" / "config.json", config.model_dump(mode="json"))
            write_json(draft / "private" / "run.json", record)
            os.chmod(draft, 0o755)
            os.chmod(draft / "outbound", 0o755)
            os.chmod(draft / "outbound" / "cards", 0o755)
            os.rename(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(path.parent)
        run = cls(path, record)
        run.event("created", privkt=privkt.__version__)
        return run

    @classmethod
    def need_free(cls, path: Path | str) -> None:
        """A run can begin in `path`. Raises RefusedInput."""
        path = Path(path).absolute()
        if cls.is_run(path):
            if _is_finished(path):
                raise RefusedInput(
                    f"run directory {path}: holds a finished run, which privkt show and privkt report tell of; name "
                    "another folder with --output"
                )
            raise RefusedInput(f"run directory {path}: holds a run; resume it with: privkt run --resume {path}")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RefusedInput(f"run directory {path}: must be new or empty; name another folder with --output")

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The run in `path`. Raises RefusedInput when there is none, or another version made it."""
        path = Path(path).absolute()
        if not cls.is_run(path):
            raise RefusedInput(f"run directory {path}: holds no run; start one with: privkt run CONFIG --output {path}")
        record = read_json(path / "private" / "run.json")
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise RefusedInput(f"run directory {path}: was made by a privkt with another format; use that version")
        if record["privkt"] != privkt.__version__:
            raise RefusedInput(
                f"run directory {path}: was made by privkt {record['privkt']}, this is {privkt.__version__}, and a run "
                "resumes only with the code that began it; install that version, or start a new run"
            )
        return cls(path, record)

    @staticmethod
    def is_run(path: Path | str) -> bool:
        """Whether a run lies there, finished or not."""
        return (Path(path) / "private" / "run.json").is_file()

    def config(self) -> RunConfig:
        """The config that the run began with."""
        try:
            return RunConfig.model_validate(read_json(self.private / "config.json"))
        except ValidationError as error:
            raise Damaged(describe("private/config.json", error, RunConfig)) from None

    def check_config(self, config: RunConfig, read_by: Mapping[str, str] | None = None) -> frozenset[str]:
        """The steps whose settings differ from those that the run began with, and may.

        `read_by`: keys of the method's block that may differ, each with the step that first reads it, while that step
        is done nowhere and nothing of it waits to cross or has crossed.
        Raises: RefusedInput, naming a key that must not differ.
        """
        ours, theirs = self.config().model_dump(mode="json"), config.model_dump(mode="json")
        differing, steps = sorted(set(_differences(ours, theirs))), set()
        fixed = []
        for key in differing:
            block, _, rest = key.partition(".")
            step = (read_by or {}).get(rest.partition(".")[0]) if block == "method_config" else None
            if step is None or self._has_begun_to_leave(step):
                fixed.append(config.method.rpartition(":")[2] + "." + rest if block == "method_config" else key)
            else:
                steps.add(step)
        if fixed:
            raise RefusedInput(
                f"run directory {self.path}: a run resumes only with the config it began with, and {fixed[0]} "
                f"differs{f' (and {len(fixed) - 1} more)' if len(fixed) > 1 else ''}; put it back, or start a "
                "new run"
            )
        return frozenset(steps)

    def take_config(self, config: RunConfig, steps: Collection[str]) -> None:
        """Goes on with another config than the run began with, `steps` from their beginnings; see `check_config`."""
        for step in steps:
            for folder in (self.private / "checkpoints").glob(f"*/{step}"):
                shutil.rmtree(folder)
        write_json(self.private / "config.json", config.model_dump(mode="json"))
        self.event("settings changed", steps=sorted(steps))

    def _has_begun_to_leave(self, step: str) -> bool:
        places = (self.private / "done", self.private / "pending", self.outbound)
        stored = any((self.private / "results").glob(f"*/*/{step}.*"))
        return stored or any(any(place.glob(f"*/{step}.*")) for place in places)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; the system lets go when the process ends, however it ends.

        Raises: RefusedInput, when another process runs it.
        """
        handle = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedInput(
                    f"run directory {self.path}: another process is running it; wait for it or stop it"
                ) from None
            yield
        finally:
            os.close(handle)

    def event(self, what: str, **facts: Any) -> None:
        """Notes what happened and when, for the person who owns the data. `facts` are names and numbers, never text."""
        append_line(self.private / "events.jsonl", json.dumps({"time": _now(), "event": what, **facts}))

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order."""
        return list(json_lines(self.private / "events.jsonl"))

    def is_finished(self) -> bool:
        """Whether all of its steps are done for all seeds."""
        return _is_finished(self.path)

    def state(self, site: str, seed: int | None) -> DiskState:
        """What `site` keeps for a seed, over what all its seeds share."""
        folder = self.private / "state" / safe_name("site", site)
        shared = DiskState(folder / SHARED)
        return shared if seed is None else DiskState(folder / scope_name(seed), shared)

    def results(self, site: str, seed: int | None) -> StepResults:
        """What steps at `site` returned and what was delivered to it: the runtime's own, unseen by the steps."""
        return StepResults(self.private / "results" / safe_name("site", site) / scope_name(seed))

    def step_folder(self, site: str, step: str, seed: int | None) -> Path:
        """A step's own private folder, for checkpoints; it survives a crash and goes when the step is done."""
        return make_folder(self._step_folder(site, step, seed))

    def clear_step(self, site: str, step: str, seed: int | None) -> None:
        """Removes a done step's folder: what it returned is stored elsewhere, and its checkpoints are private."""
        folder = self._step_folder(site, step, seed)
        if folder.exists():
            shutil.rmtree(folder)

    def _step_folder(self, site: str, step: str, seed: int | None) -> Path:
        return self.private / "checkpoints" / safe_name("site", site) / step / scope_name(seed)

    def cache(self, site: str) -> Path:
        """Where the backends of one site (one data set) may cache answers."""
        return make_folder(self.private / "cache" / safe_name("site", site))

    def is_done(self, site: str, step: str, seed: int | None) -> bool:
        """Whether the step's result is stored."""
        return self._marker(site, step, seed).exists()

    def show_model(self, site: str, seed: int | None, folder: Path) -> Path:
        """Gives a final model a plain place, private/models/<site>/<scope>: a relative link, which copies keep."""
        place = make_folder(self.private / "models" / safe_name("site", site)) / scope_name(seed)
        draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        os.symlink(os.path.relpath(folder, place.parent), draft)
        os.replace(draft, place)
        return place

    def mark_done(self, site: str, step: str, seed: int | None) -> None:
        """Notes that the step's result is stored; called after it is."""
        marker = self._marker(site, step, seed)
        make_folder(marker.parent)
        write_json(marker, {"time": _now()})

    def _marker(self, site: str, step: str, seed: int | None) -> Path:
        return self.private / "done" / safe_name("site", site) / f"{step}.{scope_name(seed)}.json"

    @property
    def wants_review(self) -> bool:
        """Whether the run began with a reviewer, who is then asked for the rest of it too."""
        return (self.private / "review.json").exists()

    def want_review(self) -> None:
        """Remembers that nothing of this run crosses without a reviewer's yes."""
        if not self.wants_review:
            write_json(self.private / "review.json", {"time": _now()})

    def heads(self) -> dict[str, str]:
        """The last known head of each data set's ledger: what makes an old copy put in its place noticeable."""
        path = self.private / "heads.json"
        return dict(read_json(path)) if path.exists() else {}

    def keep_head(self, data_name: str, head: str) -> None:
        """Remembers a ledger's head."""
        heads = self.heads()
        if heads.get(data_name) != head:
            write_json(self.private / "heads.json", {**heads, data_name: head})


def _differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            inner = f"{place}.{key}" if place else str(key)
            if key not in ours or key not in theirs:
                yield inner
            else:
                yield from _differences(ours[key], theirs[key], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(a, b, f"{place}.{i}")
    elif ours != theirs:
        yield place or "config"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

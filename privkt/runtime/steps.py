"""What a step returned and received, kept by the runtime: stored before it is handed on, never asked for twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privkt.contracts import Adapter, Message, Model, Outcome, Parcel, SoftPrompt, Texts
from privkt.privacy import Release
from privkt.runtime.errors import RunFailed
from privkt.runtime.state import DiskState

_MESSAGES = (Texts, Adapter, SoftPrompt, Parcel, Model, Outcome)


class StepResults:
    """Results of one site and scope. A step's record is written last, so that what it names is there."""

    def __init__(self, folder: Path) -> None:
        self._state = DiskState(folder)

    def has_result(self, step: str) -> bool:
        """Whether the step returned and what it returned is stored."""
        return f"{step}.result" in self._state

    def save_result(self, step: str, value: Any) -> None:
        """Stores a Release, a message, a mapping of messages by client, or None.

        Raises: RunFailed, for anything else.
        """
        kind: Any
        if value is None:
            kind = {"type": "none"}
        elif isinstance(value, Release):
            self._state.save_release(f"{step}.value", value)
            kind = {"type": "release"}
        elif isinstance(value, _MESSAGES):
            self._state.save(f"{step}.value", value)
            kind = {"type": "message"}
        elif isinstance(value, Mapping) and all(isinstance(v, _MESSAGES) for v in value.values()):
            for client, message in value.items():
                self._state.save(f"{step}.for.{client}", message)
            kind = {"type": "mapping", "clients": list(value)}
        else:
            raise RunFailed(
                f"step {step!r}: must return a Release, a message, a mapping of messages by client, or None, got "
                f"{type(value).__name__}; mend the method"
            )
        self._state.save_json(f"{step}.result", kind)

    def load_result(self, step: str) -> Any:
        """What the step returned."""
        kind = self._state.load_json(f"{step}.result")
        if kind["type"] == "none":
            return None
        if kind["type"] == "release":
            return self._state.load_release(f"{step}.value")
        if kind["type"] == "message":
            return self._state.load(f"{step}.value")
        return {client: self._state.load(f"{step}.for.{client}") for client in kind["clients"]}

    def model_folder(self, step: str) -> Path | None:
        """Where the model that the step's Outcome names lies; None if there is none."""
        is_message = self._state.load_json(f"{step}.result")["type"] == "message"
        return self._state.model_folder(f"{step}.value") if is_message else None

    def deliver(self, step: str, sender: str, message: Message) -> None:
        """Stores what `sender` sent after `step`."""
        self._state.save(f"{step}.from.{sender}", message)

    def received(self, step: str, sender: str) -> Any:
        """What `sender` sent after `step`; None if it sent nothing."""
        name = f"{step}.from.{sender}"
        return self._state.load(name) if name in self._state else None

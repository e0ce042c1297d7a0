"""What a mechanism gives away: a payload with its guarantee, its event and where it came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from privkt.privacy.errors import PrivateAccessLocked, RefusedInput
from privkt.privacy.guarantee import Guarantee

if TYPE_CHECKING:
    from dp_accounting import DpEvent

T = TypeVar("T")
U = TypeVar("U")

_locked: ContextVar[bool] = ContextVar("privkt_private_access_locked", default=False)


@contextmanager
def private_access_locked() -> Iterator[None]:
    """Make `assert_private_access` raise inside the block.

    Edge cases: holds for the same context and whatever inherits it (asyncio tasks, `copy_context().run`). A thread that
    the block starts begins with an empty context and is NOT covered; post-processing that needs threads must run them
    through `contextvars.copy_context().run`.
    """
    token = _locked.set(True)
    try:
        yield
    finally:
        _locked.reset(token)


def assert_private_access(what: str) -> None:
    """Refuse while a release is being post-processed.

    Raises: PrivateAccessLocked, naming `what` (a public name of the handle, never its content).
    """
    if _locked.get():
        raise PrivateAccessLocked(
            f"{what}: post-processing of a release must not read private data, and a private handle was used; "
            "pass what it needs as `public=` or make the reading a mechanism of its own with its own charge"
        )


@dataclass(frozen=True)
class Provenance:
    """Which mechanism made a release, for which data set (a random public id, not a hash), with what details."""

    mechanism: str
    version: str
    data_set_id: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            frozen = json.loads(json.dumps(dict(self.details), allow_nan=False))
        except (TypeError, ValueError):
            raise RefusedInput(
                f"Provenance of {self.mechanism}: details must be plain JSON values, and one is not; "
                "keep to text, finite numbers, booleans, lists and mappings"
            ) from None
        object.__setattr__(self, "details", MappingProxyType(frozen))

    def __reduce__(self) -> tuple[Any, ...]:
        return Provenance, (self.mechanism, self.version, self.data_set_id, dict(self.details))

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` accepts."""
        return {
            "mechanism": self.mechanism,
            "version": self.version,
            "data_set_id": self.data_set_id,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class Release(Generic[T]):
    """A payload that may cross the gate, with everything that says what it cost.

    Edge cases: `charge` is None only for kind none and in tests; the gate refuses a private release without one.
    """

    payload: T
    guarantee: Guarantee
    event: DpEvent
    provenance: Provenance
    charge: str | None = None

    def map(self, fn: Callable[..., U], *, public: Mapping[str, Any] | None = None) -> Release[U]:
        """Post-process: `fn(payload, **public)` with private access locked.

        Guarantee: event, guarantee, provenance and charge stay as they were (closure under post-processing, Dwork and
        Roth 2014, Proposition 2.1), since `fn` sees nothing private but the payload.
        Raises: PrivateAccessLocked, if `fn` reads private data in the same context.
        """
        with private_access_locked():
            payload = fn(self.payload, **(dict(public) if public else {}))
        return replace(self, payload=payload)  # type: ignore[arg-type, return-value]

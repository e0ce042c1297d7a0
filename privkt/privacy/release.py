"""What a mechanism gives away: a payload with its guarantee, its event and where it came from."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
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
_counting = threading.Lock()
_running = 0  # blocks of the whole process, since a thread begins with an empty context


@contextmanager
def private_access_locked() -> Iterator[None]:
    """Make `assert_private_access` raise, in every thread of the process, while the block runs.

    Edge cases: what inherited the block's context (asyncio tasks, `copy_context().run`) stays refused after it, too; a
    thread that outlives the block does not, so post-processing has to join its threads. Since the lock is the
    process's, a client's private reading fails while another client of the same process maps a release: clients that
    share a process must take turns, as those of the local runtime do.
    """
    global _running
    token = _locked.set(True)
    with _counting:
        _running += 1
    try:
        yield
    finally:
        with _counting:
            _running -= 1
        _locked.reset(token)


def assert_private_access(what: str) -> None:
    """Refuse while a release is being post-processed.

    Raises: PrivateAccessLocked, naming `what` (a public name of the handle, never its content).
    """
    if _locked.get() or _running:
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
        Edge cases: what `fn` returns is finished: a generator, another iterator or an awaitable would run after the
            lock is gone, and is refused.
        Raises: PrivateAccessLocked, if `fn`, or any thread meanwhile, reads private data; RefusedInput, for a payload
            that is still to be computed.
        """
        with private_access_locked():
            payload = fn(self.payload, **(dict(public) if public else {}))
        if isinstance(payload, Iterator | AsyncIterator | Awaitable):
            raise RefusedInput(
                f"Release.map: fn must return a finished payload, since what runs later is not watched, got "
                f"{type(payload).__name__}; return a list or a message made of it"
            )
        return replace(self, payload=payload)  # type: ignore[arg-type, return-value]

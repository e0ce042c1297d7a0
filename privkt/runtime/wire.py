"""Messages as bytes: Arrow for texts, safetensors with JSON for adapters, both in a parcel; never pickle.

Only what is declared crosses: fixed columns, whitelisted settings. `Model` and `Outcome` have no encoding: they stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from privkt.contracts.messages import Adapter, Message, Parcel, SoftPrompt, Texts
from privkt.runtime.adapters import decode_adapter, encode_adapter
from privkt.runtime.errors import WireError
from privkt.runtime.parcels import MARK, decode_parcel, encode_parcel
from privkt.runtime.tables import decode_texts, encode_texts

MAX_BYTES = 4 * 2**30
_ARROW = b"\xff\xff\xff\xff"  # an Arrow stream's first word; as a safetensors header length it is out of bounds

SUFFIXES = {"texts": ".arrow", "adapter": ".safetensors", "soft-prompt": ".safetensors", "parcel": ".parcel"}


def type_name(message: object) -> str:
    """The public name of a message's type. Raises WireError for what never crosses."""
    if isinstance(message, Texts):
        return "texts"
    if isinstance(message, SoftPrompt):
        return "soft-prompt"
    if isinstance(message, Adapter):
        return "adapter"
    if isinstance(message, Parcel):
        return "parcel"
    raise WireError(
        f"wire: {type(message).__name__} never crosses; release Texts, an Adapter, a SoftPrompt or a Parcel of them, "
        "and keep the rest in an Outcome or site.state"
    )


def encode(message: Message, columns: Collection[str] = ()) -> bytes:
    """The bytes of a message that may cross; `columns` are the further columns of Texts that may.

    Guarantee: a function of the message alone: equal messages give equal bytes.
    Raises: WireError, naming what may not cross.
    """
    type_name(message)
    if isinstance(message, Texts):
        return encode_texts(message, columns)
    if isinstance(message, Parcel):
        return encode_parcel(message, lambda item: encode(item, columns))
    assert isinstance(message, Adapter | SoftPrompt)
    return encode_adapter(message)


def decode(data: bytes, columns: Collection[str] | None = None) -> Texts | Adapter | SoftPrompt | Parcel:
    """The message in bytes that may come from anybody. Raises WireError, never anything else."""
    if len(data) > MAX_BYTES:
        raise WireError(f"wire: a message must be at most {MAX_BYTES} bytes, got {len(data)}; send less")
    if data[:4] == _ARROW:
        return decode_texts(data, columns)
    if data[: len(MARK)] == MARK:
        return decode_parcel(data, lambda body: decode(body, columns))
    return decode_adapter(data)


def row_count(message: Message) -> int:
    """How many rows (or weight files: one) a message has, a parcel those of its items; public by design."""
    if isinstance(message, Parcel):
        return sum(row_count(item) for item in message.items.values())
    return len(message) if isinstance(message, Texts) else 1


def digest(data: bytes) -> str:
    """SHA-256 of bytes that were released; never of private ones."""
    return hashlib.sha256(data).hexdigest()

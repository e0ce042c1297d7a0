"""`Parcel` as bytes: a mark, a JSON table of contents, then the items as each would cross alone."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from privkt.contracts.messages import Adapter, Parcel, SoftPrompt, Texts
from privkt.runtime.errors import WireError

#: As a safetensors header length it is out of bounds, and no Arrow stream begins so.
MARK = b"PRIVKTP1"
_MAX_TABLE = 2**20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

Item = Texts | Adapter | SoftPrompt


def encode_parcel(parcel: Parcel, encode: Callable[[Item], bytes]) -> bytes:
    """The bytes of a parcel, its items sorted by name.

    Guarantee: equal parcels give equal bytes.
    """
    bodies = {name: encode(item) for name, item in sorted(parcel.items.items())}
    table = json.dumps([[name, len(body)] for name, body in bodies.items()], separators=(",", ":")).encode()
    return MARK + struct.pack("<Q", len(table)) + table + b"".join(bodies.values())


def decode_parcel(data: bytes, decode: Callable[[bytes], Any]) -> Parcel:
    """The parcel in bytes that may come from anybody. Raises WireError, never anything else."""
    items: dict[str, Item] = {}
    place, table = _contents(data)
    for name, length in table:
        body = data[place : place + length]
        if len(body) < length or name in items:
            raise WireError("parcel: its items must be whole and have distinct names; ask for it again")
        if body[: len(MARK)] == MARK:
            raise WireError("parcel: an item must not be a parcel itself")
        items[name] = decode(body)
        place += length
    if place != len(data):
        raise WireError("parcel: it must end with its last item")
    return Parcel(items)


def _contents(data: bytes) -> tuple[int, list[tuple[str, int]]]:
    """(where the first item begins, [(name, length)])."""
    if len(data) < len(MARK) + 8:
        raise WireError("parcel: it ends early; ask for it again")
    (length,) = struct.unpack_from("<Q", data, len(MARK))
    start = len(MARK) + 8 + length
    if length > _MAX_TABLE or start > len(data):
        raise WireError("parcel: its table of contents is longer than allowed or than the message")
    try:
        table = json.loads(data[len(MARK) + 8 : start].decode("utf-8"))
        found = [(entry[0], entry[1]) for entry in table if len(entry) == 2]
        fine = len(found) == len(table) and all(
            isinstance(name, str) and _NAME.fullmatch(name) and type(size) is int and 0 <= size < 2**48
            for name, size in found
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        fine, found = False, []
    if not fine or isinstance(table, Mapping):
        raise WireError("parcel: its table of contents must list pairs of a plain name and a length")
    return start, found

"""`Texts` as an Arrow IPC stream: one fixed schema, one record batch, nothing else."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from typing import Any

from privkt.contracts.messages import Texts
from privkt.runtime.errors import WireError

_MARK = {b"privkt": b"texts/1"}
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_COLUMN_BYTES = 2**31 - 1  # Arrow's utf8 type has 32-bit offsets
_RECORD_BATCH = 3  # MessageHeader.RecordBatch, Arrow format, Message.fbs


def encode_texts(texts: Texts, columns: Collection[str] = ()) -> bytes:
    """The bytes of a table; `columns` are the further columns that may cross.

    Guarantee: equal tables give equal bytes; what the schema does not name is not in them.
    Raises: WireError, naming a column that is not allowed, or that is not a column of valid Unicode strings.
    """
    import pyarrow as pa

    for name in sorted(texts.columns):
        if name not in columns:
            allowed = ", ".join(["text", "label", *sorted(columns)])
            raise WireError(f"texts: column {name!r} may not cross, only {allowed}; drop it in the step")
    names = ["text", *(["label"] if texts.label is not None else []), *sorted(texts.columns)]
    schema = _schema(names)
    values = {"text": texts.text, "label": texts.label, **texts.columns}
    arrays = [_array(name, values[name]) for name in names]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return bytes(sink.getvalue())


def _array(name: str, values: Any) -> Any:
    import pyarrow as pa

    if not all(type(value) is str for value in values):
        raise WireError(f"texts: column {name!r} must hold strings only; convert its values in the step")
    try:
        size = sum(len(value.encode()) for value in values)
    except UnicodeEncodeError:
        # The codec's own message quotes the text.
        raise WireError(f"texts: column {name!r} must be valid Unicode, and a row is not") from None
    if size > _MAX_COLUMN_BYTES:
        raise WireError(f"texts: column {name!r} must be under 2 GiB, got {size} bytes; send fewer rows")
    return pa.array(values, type=pa.utf8())


def decode_texts(data: bytes, columns: Collection[str] | None = None) -> Texts:
    """The table in `data`, which may come from anybody; `columns` restricts the further columns (None: any).

    Raises: WireError, for anything but one schema of ours and one uncompressed batch of valid UTF-8 without nulls.
    """
    import pyarrow as pa

    source = pa.BufferReader(data)
    try:
        reader = pa.ipc.MessageReader.open_stream(source)
        first, second = reader.read_next_message(), reader.read_next_message()
        if first.type != "schema" or second.type != "record batch":
            raise WireError(f"texts: must be a schema and a record batch, got {first.type} and {second.type}")
        names = _checked_names(pa.ipc.read_schema(first), columns)
        _refuse_compression(bytes(second.metadata))
        batch = pa.ipc.read_record_batch(second, _schema(names))
        batch.validate(full=True)
        _refuse_rest(reader, source, len(data))
        if any(column.null_count for column in batch.columns):
            raise WireError("texts: a value is missing (null), and every row must have every column")
        found = {name: tuple(batch.column(i).to_pylist()) for i, name in enumerate(names)}
    except WireError:
        raise
    except StopIteration:
        raise WireError("texts: the table ends early; ask for it again") from None
    except (pa.ArrowException, OSError, ValueError, MemoryError, struct.error, IndexError) as error:
        # Arrow's message may quote bytes of the table.
        raise WireError(f"texts: not a readable Arrow table ({type(error).__name__})") from None
    text, label = found.pop("text"), found.pop("label", None)
    return Texts(text, label, found)


def _schema(names: list[str]) -> Any:
    import pyarrow as pa

    for name in names:
        if not _COLUMN.fullmatch(name):
            raise WireError(f"texts: column name must match {_COLUMN.pattern}, got {name[:64]!r}; rename it")
    return pa.schema([pa.field(name, pa.utf8(), nullable=False) for name in names], metadata=_MARK)


def _checked_names(schema: Any, columns: Collection[str] | None) -> list[str]:
    names = list(schema.names)
    head = ["text", *(["label"] if "label" in names else [])]
    if names != head + sorted(set(names) - set(head)) or len(names) > 64:
        raise WireError("texts: columns must be text, label and further ones in order, each once")
    if columns is not None and (strange := sorted(set(names) - {"text", "label", *columns})):
        raise WireError(f"texts: column {strange[0][:64]!r} was not announced; the sender must drop it")
    if not schema.equals(_schema(names), check_metadata=True):
        raise WireError("texts: the schema must be version texts/1 with non-null utf8 columns only")
    return names


def _refuse_rest(reader: Any, source: Any, size: int) -> None:
    start = source.tell()
    try:
        reader.read_next_message()
    except StopIteration:
        if start == size - 8 and source.tell() == size:  # the end mark, which a stream may lack; a message may not
            return
    raise WireError("texts: the table must be followed by its end mark and nothing else")


def _refuse_compression(metadata: bytes) -> None:
    """A compressed body can expand without bound. pyarrow cannot say whether one is: read the flatbuffer's field.

    References: Arrow format, Message.fbs (Message: header_type 1, header 2; RecordBatch: compression 3).
    """
    root = struct.unpack_from("<I", metadata)[0]
    kind = _field(metadata, root, 1)
    header = _field(metadata, root, 2)
    if kind is None or header is None or metadata[kind] != _RECORD_BATCH:
        raise WireError("texts: the second part must be a record batch")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    if _field(metadata, batch, 3) is not None:
        raise WireError("texts: the table must not be compressed; send it as `encode` makes it")


def _field(buffer: bytes, table: int, index: int) -> int | None:
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise struct.error("vtable outside the buffer")
    slot = 4 + 2 * index
    if slot >= struct.unpack_from("<H", buffer, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0]
    return table + offset if offset else None

"""The options of a data block that every source understands, checked before a file is opened."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privkt.contracts import DataSource
from privkt.privacy import RefusedInput

COMMON = ("columns", "id", "label_map", "limit")


@dataclass(frozen=True)
class Options:
    """`id` names a column of unique ids; `columns` further columns, of text, whole numbers or lists of them (kept
    as a line of JSON); `label_map` turns values of the file into declared labels; `limit` takes the first rows."""

    id: str | None = None
    columns: tuple[str, ...] = ()
    label_map: Mapping[str, str] | None = None
    limit: int | None = None


def subject(source: DataSource) -> str:
    """How messages name the data: by its source, never by its path, which may itself be private."""
    return f"data ({source.source})"


def read_options(source: DataSource, own: tuple[str, ...] = ()) -> Options:
    """The common options of a block; `own` are the source's further keys. Raises RefusedInput with the nearest name."""
    who, given = subject(source), source.options
    known = (*COMMON, *own)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), [*known, "path", "text", "label", "labels"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
            raise RefusedInput(f"{who}: unknown option {key!r}; {hint}")
    _check_labels(source)
    label_map = given.get("label_map")
    return Options(
        id=text_option(source, "id"),
        columns=_columns(who, given.get("columns")),
        label_map=None if label_map is None else _label_map(source, label_map),
        limit=_limit(who, given.get("limit")),
    )


def text_option(source: DataSource, key: str, default: str | None = None) -> str | None:
    """An option that must be text; `default` if the block lacks it."""
    value = source.options.get(key, default)
    if value is None or (isinstance(value, str) and value):
        return value
    raise RefusedInput(f"{subject(source)}: option {key!r} must be text, got {type(value).__name__}; quote it")


def _check_labels(source: DataSource) -> None:
    labels = source.labels
    if labels is None:
        return
    if source.label is None:
        raise RefusedInput(f"{subject(source)}: `labels` needs `label`, the column that holds them; add it")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise RefusedInput(
            f"{subject(source)}: `labels` must be at least two different names, got {len(labels)} "
            f"({len(set(labels))} different); list every class once"
        )


def _columns(who: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise RefusedInput(
            f"{who}: option 'columns' must be a list of column names, got {type(value).__name__}; write [a, b]"
        )
    return tuple(dict.fromkeys(value))


def _label_map(source: DataSource, value: Any) -> Mapping[str, str]:
    who = subject(source)
    if not isinstance(value, Mapping) or not value:
        raise RefusedInput(
            f"{who}: option 'label_map' must map values of the file to labels, got {type(value).__name__}; "
            "write {0: negative, 1: positive}"
        )
    mapped = {str(key): label for key, label in value.items()}
    known = source.labels
    for label in mapped.values():
        if not isinstance(label, str) or (known is not None and label not in known):
            raise RefusedInput(
                f"{who}: option 'label_map' must lead to declared labels ({', '.join(known or ()) or 'names'}), got "
                f"{label!r}; correct it or declare the label"
            )
    return mapped


def _limit(who: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise RefusedInput(f"{who}: option 'limit' must be a whole number > 0, got {value!r}; leave it out for all rows")

"""Whether data that a method calls public are a client's own: refused by where they come from, not by what they say."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from privkt.config import DataConfig
from privkt.privacy import RefusedInput

_DICTIONARY = "dataset_dict.json"  # a saved folder without it has one set of rows, whatever split is named
_EVERY_SPLIT = "all"
_SLICE = re.compile(r"\[[^\]]*\]")


def need_public(method: str, blocks: Sequence[DataConfig], private: Iterable[tuple[str, DataConfig]]) -> None:
    """Refuses a method's public data that nobody declared public, or that are the rows of a client.

    `private` holds what must not be among them, each with the words that name it.

    Raises: RefusedInput.
    """
    owned = [(where, mine) for where, mine in private if not mine.public]
    for block in blocks:
        for where, mine in owned:
            if overlap(block, mine):
                raise RefusedInput(
                    f"{method}: the block of public data {_named(block)} names the data of {where}, which would leave "
                    "in clear; name a public data set"
                )
        if not block.public:
            raise RefusedInput(
                f"{method}: the data of {_named(block)} are read as public, by both sides and in clear, and their "
                "block does not say that they are; if no private row is among them, add `public: true` to the block"
            )


def overlap(one: DataConfig, other: DataConfig) -> bool:
    """Whether two blocks name the same rows: one file wherever links lead, or one split of one data set.

    Guarantee: nothing of what stands in a file decides, so that a refusal tells nobody of it. A copy is not seen.
    Edge cases: slices of a split overlap, whatever rows they hold; revisions and configs of a data set too.
    """
    if one.path is not None and other.path is not None:
        here, there = Path(os.path.realpath(one.path)), Path(os.path.realpath(other.path))
        same = here == there or (here.is_file() and there.is_file() and here.samefile(there))
        return same and (not (here / _DICTIONARY).is_file() or _splits_meet(one, other))
    if one.path is not None or other.path is not None:
        return False
    return one.source == other.source and _dataset(one) == _dataset(other) and _splits_meet(one, other)


def is_copy(one: DataConfig, other: DataConfig) -> bool:
    """Whether two blocks name files of the same bytes.

    Guarantee: none; it may be told to the data's owner, and must decide nothing: whoever knows all rows but one, and
        may propose the public file, would learn from a refusal whether they guess the last.
    Edge cases: a copy that was changed, or a part of one, is none; a file that cannot be read is none.
    """
    if one.path is None or other.path is None:
        return False
    with suppress(OSError):
        return Path(one.path).is_file() and filecmp.cmp(one.path, other.path, shallow=False)
    return False


def _splits_meet(one: DataConfig, other: DataConfig) -> bool:
    mine, others = _splits(one), _splits(other)
    return bool(mine & others) or _EVERY_SPLIT in mine | others


def _splits(block: DataConfig) -> frozenset[str]:
    """Names of the splits that a block reads: of "train[:10%]+test", train and test."""
    written = block.options.get("split") or "train"
    return frozenset(name.strip() for name in _SLICE.sub("", str(written)).split("+"))


def _dataset(block: DataConfig) -> str:
    return str(block.options.get("dataset")).casefold()


def _named(block: DataConfig) -> str:
    return repr(block.path) if block.path is not None else f"{block.source} {block.options.get('dataset')!r}"

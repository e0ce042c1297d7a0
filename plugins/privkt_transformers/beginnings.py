"""What all rows of a batch begin with, an instruction or a worked example, is read once and not once a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from privkt_transformers.loading import Loaded
from privkt_transformers.network import PaddedBatch, hidden_states, pad

_WORTH_IT = 8  # tokens: below that, one pass more costs what it saves


def begin(loaded: Loaded, rows: Sequence[Sequence[int]]) -> tuple[PaddedBatch, DynamicCache]:
    """Rows as a batch padded on the left, and the cache that it continues: filled with what they share, or empty.

    Guarantee: a row's hidden states are those of the whole row in one batch, up to rounding: what is shared is as far
        from its end as it was, and the padding between the two is masked and has no position.
    Edge cases: networks whose layers look at windows or keep states get an empty cache: there padding between two
        tokens would count as distance.
    """
    cache = DynamicCache(config=loaded.config)
    shared = _shared(rows)
    if len(rows) < 2 or shared < _WORTH_IT or not all(type(layer) is DynamicLayer for layer in cache.layers):
        return pad(loaded, rows, left=True), cache
    first = pad(loaded, [rows[0][:shared]], left=True)
    hidden_states(loaded, first, cache)
    cache.batch_repeat_interleave(len(rows))
    rest = pad(replace(loaded, prefix=None), [row[shared:] for row in rows], left=True)
    return PaddedBatch(rest.ids, torch.cat([first.mask.expand(len(rows), -1), rest.mask], 1)), cache


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning that leaves each row a token to read."""
    low, high = min(map(tuple, rows)), max(map(tuple, rows))  # all others lie between these two
    most = min(map(len, rows)) - 1
    return next((i for i in range(most) if low[i] != high[i]), max(most, 0))

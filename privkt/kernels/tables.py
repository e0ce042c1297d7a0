"""What is asked of a whole public table once: each word's neighbours and farthest distance, and what certifies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.exponential import ByteTable, Levels, weight_totals
from privkt.kernels.rejection import Neighbours, row_extremes

_FIRST_LOOK, _LARGEST_LOOK = 480, 1 << 13  # words whose rows are enumerated at a time


@dataclass(frozen=True)
class TableIndex:
    """What one pass over all pairs of a table's words finds: it serves any levels and weights.

    Shapes: farthest [words] int32, the largest squared distance of each word.
    """

    near: Neighbours
    farthest: Tensor


def table_index(table: ByteTable, k: int = 64) -> TableIndex:
    """The `neighbours` of a public table and its farthest distances; k is at most the number of words.

    Guarantee: exact on the integer distances, whatever the number of threads; each pair of words is computed once.
    """
    ids, distances, farthest = _schema.ops.table_nearest(table.rows, table.sqnorms, min(k, len(table.rows)))
    return TableIndex(Neighbours(ids, distances), farthest)


def largest_spread(
    table: ByteTable, index: TableIndex, levels: Levels, log_weights: Sequence[int], log_totals: Sequence[int]
) -> int:
    """The largest most[y] - least[y] of `log_extremes`, over all words y, from the rows of the few that can have it.

    Units: those of `log_extremes`; `privkt.privacy.weights.exact_epsilon` takes it, with 0 for the least.
    Guarantee: exactly the largest. A row is left out only if its list and its farthest word bound its spread by one
        that was enumerated (docs/proofs/exponential.md).
    Raises: ValueError for logarithms that grow with their level: nothing bounds a row then.
    """
    by_level, totals = torch.tensor(list(log_weights)), torch.tensor(list(log_totals))
    if int((by_level[1:] > by_level[:-1]).sum()):
        raise ValueError(
            "largest_spread: log_weights must not grow with their level, got some that do; use log_extremes"
        )
    listed = by_level[levels_of(index.near.distances, levels)]
    most = torch.maximum(
        (listed - totals[index.near.ids.long()]).amax(1),  # of words x in the list
        listed[:, -1] - totals.min(),  # of any other
    )
    bounds = most - (by_level[levels_of(index.farthest[:, None], levels)[:, 0]] - totals.max())
    order = torch.argsort(bounds, descending=True)
    values, by_word, found, start = by_level.int(), -totals.int(), 0, 0
    while start < len(order) and int(bounds[order[start]]) > found:
        stop = start + min(max(_FIRST_LOOK, start), _LARGEST_LOOK)
        chosen = order[start:stop]
        highest, lowest = row_extremes(table, levels, values, by_word, ids=chosen[bounds[chosen] > found])
        found, start = max(found, int((highest - lowest).max())), stop
    return found


def levels_of(distances: Tensor, levels: Levels) -> Tensor:
    """The levels of any distances, int64: from the kernel that defines them."""
    flat = distances.flatten()
    zeros = ByteTable(torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1, dtype=torch.int32), 1.0)
    queries = (torch.zeros(len(flat), 1, dtype=torch.int8), flat.clamp(max=2**30))
    places = torch.arange(1, levels.last + 2, dtype=torch.int32)
    return (weight_totals(zeros, levels, places, queries=queries) - 1).view(distances.shape)

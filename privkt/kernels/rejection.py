"""Draws for words of a static table by rejection from a list of nearest words, and what certifies such a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.exponential import ByteTable, Levels, _how, _table, table_totals, weight_totals
from privkt.kernels.native import runs_on
from privkt.kernels.noise import key_tensor

_WORDS_OF_STREAM = 2**18
_FAILURE_BITS = 128


@dataclass(frozen=True)
class Neighbours:
    """The k nearest words of each word of a table, least by (distance, id) first, and their squared distances.

    Shapes: ids [words, k] int32, distances [words, k] int32: 8 bytes an entry. It serves any levels and weights.
    """

    ids: Tensor
    distances: Tensor


@dataclass(frozen=True)
class FixedTime:
    """How many rounds a draw takes whatever the word is, and the public bounds that its proposals come from."""

    rounds: int
    most_listed: int
    most_tail: int


def nearest_words(
    table: ByteTable, k: int, *, ids: Tensor | None = None, queries: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest words of each query and their squared distances, ascending; of equally near ones, lower ids first.

    Shapes: ids [n], or queries from `quantised`; both results are [n, k] int32. k 1 is the arg-min.
    Guarantee: exact on the integer distances; none of privacy: it is for public tables, or for queries that were made
        noisy before.
    """
    return _schema.ops.nearest_words(*_table("nearest_words", table, ids, queries), k)


def neighbours(table: ByteTable, k: int = 64) -> Neighbours:
    """The list that `draw_words_near` draws from, for a public table; k is at most the number of words."""
    most, device = min(k, len(table.rows)), table.rows.device
    if runs_on("table_nearest", device):
        return Neighbours(*_schema.ops.table_nearest(table.rows, table.sqnorms, most)[:2])
    return Neighbours(*nearest_words(table, most, ids=_all_ids(table)))


def _all_ids(table: ByteTable) -> Tensor:
    return torch.arange(len(table.rows), device=table.rows.device)


def row_extremes(
    table: ByteTable,
    levels: Levels,
    values: Tensor,
    word_values: Tensor,
    *,
    ids: Tensor | None = None,
    queries: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """(most, least) over all words v of values[level of (query, v)] + word_values[v], each [n] int32.

    Shapes: values [last + 1] int32, word_values [words] int32, both within 2^30.
    """
    where = _table("row_extremes", table, ids, queries)
    return _schema.ops.row_extremes(*where, levels.shift, levels.root, levels.last, values, word_values)


def draw_words_near(
    table: ByteTable,
    near: Neighbours,
    levels: Levels,
    weights: Tensor,
    ids: Tensor,
    key: bytes,
    step: int,
    offset: int = 0,
    *,
    fixed: FixedTime | None = None,
) -> Tensor:
    """`draw_words` for ids of the table by rejection: the same distribution, from other words of the key stream.

    Shapes: ids [n] int64; the result is [n] int64. Units: a few distances a token instead of all.
    Guarantee: those of `draw_words`, for a list that `neighbours` made of this very table; with `fixed`, every draw
        takes the same operations, of which the memory that they touch depends on the word's row alone, and the
        distribution is within 2^-128 of the weights' (pure epsilon by the range bound, delta 2^-128 by the exact one).
    Edge cases: without `fixed` the number of proposals depends on the word: who can time single draws learns about it.
    Raises: ValueError for weights that grow with their level, or lists of another size.
    References: docs/proofs/exponential.md; Lemire 2019.
    """
    if not 0 <= step < 2**64:
        raise ValueError(f"draw_words_near: step must be in [0, 2^64), got {step}; use a new key before it runs out")
    bounds = (0, 0, 0) if fixed is None else (fixed.rounds, fixed.most_listed, fixed.most_tail)
    signed = step - 2**64 if step >= 2**63 else step
    return _schema.ops.rejection_draws(
        ids,
        table.rows,
        table.sqnorms,
        near.ids,
        near.distances,
        *_how(levels, weights),
        *bounds,
        key_tensor(key),
        signed,
        offset,
    )


def fixed_time(table: ByteTable, near: Neighbours, levels: Levels, weights: Tensor) -> FixedTime:
    """The rounds after which no word of the table is still undecided but with probability 2^-128, and their bounds.

    Guarantee: rounds >= 128 ln 2 / p, p the least chance over the table's words that a round decides, in integers.
    Edge cases: it streams the whole table once.
    Raises: ValueError where all weights are equal (nothing is private then), or a draw would need more than 2^18 words.
    """
    if int(weights[0]) == int(weights[-1]):
        raise ValueError("fixed_time: weights must differ, got one weight; draw uniformly instead")
    own = _weights_at(near.distances, levels, weights)
    totals = table_totals(table, levels, weights)
    most_listed, most_tail = int(own.sum(1).max()), int(own[:, -1].max())
    return FixedTime(_rounds(int(totals.min()), most_listed, most_tail, len(table.rows)), most_listed, most_tail)


def _rounds(least_total: int, most_listed: int, most_tail: int, words: int) -> int:
    # a word of 64 bits is refused with probability below total / 2^64; a round needs three that are not
    proposed = most_listed + words * most_tail
    kept = [2**64 - total for total in (proposed, words, most_tail)]
    numerator, denominator = least_total * math.prod(kept), proposed * 2**192
    rounds = -(-89 * denominator // numerator)  # 128 ln 2 = 88.7
    if 3 * rounds + 1 > _WORDS_OF_STREAM:
        raise ValueError(
            f"fixed_time: a draw must need at most {_WORDS_OF_STREAM} words of key stream, got {3 * rounds + 1}; "
            "give a longer list of neighbours or stream"
        )
    return rounds


def _weights_at(distances: Tensor, levels: Levels, weights: Tensor) -> Tensor:
    """The weights of listed distances, in int64: the levels come from the kernel that defines them."""
    flat = distances.flatten()
    zeros = ByteTable(flat.new_zeros(1, 1, dtype=torch.int8), flat.new_zeros(1), 1.0)
    queries = (flat.new_zeros(len(flat), 1, dtype=torch.int8), flat.clamp(max=2**30))
    return weight_totals(zeros, levels, weights, queries=queries).view(distances.shape)


def log_extremes(
    table: ByteTable, levels: Levels, log_weights: Sequence[int], log_totals: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """For each word y, the extremes over words x of log_weights[level of (x, y)] - log_totals[x].

    Units: those of the logarithms, int32, as `privkt.privacy.weights.floor_logs` gives; `exact_epsilon` takes both.
    Guarantee: every pair of words is looked at. Distances are symmetric, so y's row holds all x.
    """
    by_level, by_word = torch.tensor(list(log_weights)), -torch.tensor(list(log_totals))
    values, word_values = (x.int().to(table.rows.device) for x in (by_level, by_word))
    return row_extremes(table, levels, values, word_values, ids=_all_ids(table))

"""What the token ops demand of their arguments, before any pointer leaves Python."""

from __future__ import annotations

import torch
from torch import Tensor

from privkt.kernels.checks import _same_device, _vector

MOST_BYTES = 2**14
MOST_QUERY_BIAS, MOST_WORD_BIAS = 2**30, 2**28
MOST_LEVEL = 2**15 - 1
SHIFTS = (-16, 30)
MOST_TOTAL = 2**62
TOKENS = 2**46
MOST_FLIPPED = 10752 * 16


def _bytes(op: str, name: str, x: Tensor) -> None:
    if x.dtype != torch.int8:
        got = str(x.dtype).removeprefix("torch.")
        raise TypeError(f"{op}: {name} must be int8, got {got}; quantise them with byte_table or quantised")
    if x.dim() != 2 or not 1 <= x.shape[1] <= MOST_BYTES:
        raise ValueError(
            f"{op}: {name} must have shape [n, width] with width from 1 to {MOST_BYTES}, got {list(x.shape)}; "
            "give one vector a row"
        )
    if x.numel() and x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"{op}: {name} must be contiguous along the width, got stride {x.stride(1)}; copy them")


def _bias(op: str, name: str, x: Tensor, length: int, most: int) -> None:
    _vector(op, name, x, length, (torch.int32,))
    if length and not 0 <= int(x.min()) <= int(x.max()) <= most:
        raise ValueError(
            f"{op}: {name} must be in [0, {most}], got {int(x.min())} to {int(x.max())}; "
            "use square norms, or shift what stands for them"
        )


def _ids(op: str, ids: Tensor, count: int) -> None:
    _vector(op, "ids", ids, None, (torch.int64,))
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        # no id is named: they are private text
        raise ValueError(f"{op}: ids must be in [0, {count}), got one outside; map every token into the vocabulary")


def _levels(op: str, shift: int, last: int) -> None:
    if not SHIFTS[0] <= shift <= SHIFTS[1]:
        raise ValueError(f"{op}: shift must be from {SHIFTS[0]} to {SHIFTS[1]}, got {shift}; choose another resolution")
    if not 0 <= last <= MOST_LEVEL:
        raise ValueError(f"{op}: last level must be in [0, {MOST_LEVEL}], got {last}; choose a coarser resolution")


def _weights(op: str, weights: Tensor, last: int, rows: Tensor) -> None:
    count = len(rows)
    _vector(op, "weights", weights, last + 1, (torch.int32, torch.int64))
    _same_device(op, "weights", weights, rows, "words")
    least, most = int(weights.min()), int(weights.max())
    if least < 1:
        raise ValueError(f"{op}: weights must be at least 1, got {least}; an output that cannot come has no guarantee")
    if most * count >= MOST_TOTAL:
        raise ValueError(
            f"{op}: words times the largest weight must be below 2^62, got {count} * {most}; use fewer bits"
        )


def _table(op: str, queries: Tensor, query_bias: Tensor, ids: Tensor | None, rows: Tensor, bias: Tensor) -> None:
    _bytes(op, "words", rows)
    if not len(rows):
        raise ValueError(f"{op}: words must not be empty, got shape {list(rows.shape)}; give the public table")
    _bias(op, "words' bias", bias, len(rows), MOST_WORD_BIAS)
    _bytes(op, "queries", queries)
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(
            f"{op}: queries must be as wide as the words, {rows.shape[1]}, got {queries.shape[1]}; "
            "use vectors of the same model"
        )
    _bias(op, "queries' bias", query_bias, len(queries), MOST_QUERY_BIAS)
    for name, x in (("words' bias", bias), ("queries", queries), ("queries' bias", query_bias)):
        _same_device(op, name, x, rows, "words")
    if ids is not None:
        _ids(op, ids, len(queries))
        _same_device(op, "ids", ids, rows, "words")


def _counter(op: str, offset: int, count: int) -> None:
    if offset < 0 or offset + count > TOKENS:
        raise ValueError(f"{op}: offset + n must be in [0, 2^46], got {offset} + {count}; use the next step")


def weight_totals(
    queries: Tensor,
    query_bias: Tensor,
    ids: Tensor | None,
    rows: Tensor,
    bias: Tensor,
    shift: int,
    root: bool,
    last: int,
    weights: Tensor,
) -> None:
    op = "weight_totals"
    _table(op, queries, query_bias, ids, rows, bias)
    _levels(op, shift, last)
    _weights(op, weights, last, rows)


def exponential_draws(
    queries: Tensor,
    query_bias: Tensor,
    ids: Tensor | None,
    rows: Tensor,
    bias: Tensor,
    shift: int,
    root: bool,
    last: int,
    weights: Tensor,
    key: Tensor,
    step: int,
    offset: int,
) -> None:
    op = "exponential_draws"
    _table(op, queries, query_bias, ids, rows, bias)
    _levels(op, shift, last)
    _weights(op, weights, last, rows)
    _vector(op, "key", key, 32, (torch.uint8,))
    _counter(op, offset, len(queries) if ids is None else len(ids))


def nearest_words(queries: Tensor, query_bias: Tensor, ids: Tensor | None, rows: Tensor, bias: Tensor, k: int) -> None:
    _table("nearest_words", queries, query_bias, ids, rows, bias)
    if not 1 <= k <= len(rows):
        raise ValueError(f"nearest_words: k must be from 1 to the {len(rows)} words, got {k}; ask for fewer")


def _whole(op: str, rows: Tensor, bias: Tensor) -> None:
    _table(op, rows, bias, None, rows, bias)


def table_nearest(rows: Tensor, bias: Tensor, k: int) -> None:
    _whole("table_nearest", rows, bias)
    if not 1 <= k <= len(rows):
        raise ValueError(f"table_nearest: k must be from 1 to the {len(rows)} words, got {k}; ask for fewer")


def table_totals(rows: Tensor, bias: Tensor, shift: int, root: bool, last: int, weights: Tensor) -> None:
    op = "table_totals"
    _whole(op, rows, bias)
    _levels(op, shift, last)
    _weights(op, weights, last, rows)


def row_extremes(
    queries: Tensor,
    query_bias: Tensor,
    ids: Tensor | None,
    rows: Tensor,
    bias: Tensor,
    shift: int,
    root: bool,
    last: int,
    values: Tensor,
    word_values: Tensor,
) -> None:
    op = "row_extremes"
    _table(op, queries, query_bias, ids, rows, bias)
    _levels(op, shift, last)
    for name, x, length in (("values", values, last + 1), ("word_values", word_values, len(rows))):
        _vector(op, name, x, length, (torch.int32,))
        _same_device(op, name, x, rows, "words")
        if not -(2**30) <= int(x.min()) <= int(x.max()) < 2**30:
            raise ValueError(
                f"{op}: {name} must be in [-2^30, 2^30), got {int(x.min())} to {int(x.max())}; use a coarser unit"
            )


def rejection_draws(
    ids: Tensor,
    rows: Tensor,
    bias: Tensor,
    near_ids: Tensor,
    near_distances: Tensor,
    shift: int,
    root: bool,
    last: int,
    weights: Tensor,
    rounds: int,
    most_listed: int,
    most_tail: int,
    key: Tensor,
    step: int,
    offset: int,
) -> None:
    op = "rejection_draws"
    _table(op, rows, bias, ids, rows, bias)
    _levels(op, shift, last)
    _weights(op, weights, last, rows)
    if int((weights[1:] > weights[:-1]).sum()):
        raise ValueError(f"{op}: weights must not grow with their level, got some that do; draw by streaming instead")
    for name, x in (("near_ids", near_ids), ("near_distances", near_distances)):
        if x.dtype != torch.int32 or x.dim() != 2 or len(x) != len(rows) or not 1 <= x.shape[1] <= len(rows):
            raise ValueError(
                f"{op}: {name} must be int32 of shape [{len(rows)}, k] with k from 1 to {len(rows)}, "
                f"got {list(x.shape)} {x.dtype}; make the list with neighbours"
            )
        if not x.is_contiguous():
            raise ValueError(f"{op}: {name} must be contiguous, got strides {x.stride()}; call .contiguous() on it")
        _same_device(op, name, x, rows, "words")
    if near_ids.shape != near_distances.shape:
        raise ValueError(
            f"{op}: near_distances must have the shape of near_ids, {list(near_ids.shape)}, "
            f"got {list(near_distances.shape)}; make the list with neighbours"
        )
    if rounds < 0 or (rounds and (most_listed < 1 or most_tail < 1 or most_listed + len(rows) * most_tail >= 2**63)):
        raise ValueError(
            f"{op}: a fixed time needs rounds and both bounds above 0 and their sum below 2^63, "
            f"got {rounds}, {most_listed} and {most_tail}; use fixed_time"
        )
    _vector(op, "key", key, 32, (torch.uint8,))
    _counter(op, offset, len(ids))


def flip_draws(
    ids: Tensor,
    rows: Tensor,
    bias: Tensor,
    shift: int,
    root: bool,
    last: int,
    weights: Tensor,
    key: Tensor,
    step: int,
    offset: int,
) -> None:
    op = "flip_draws"
    _table(op, rows, bias, ids, rows, bias)
    _levels(op, shift, last)
    _weights(op, weights, last, rows)
    most = int(weights[0])
    if weights.dtype != torch.int32 or most < 2 or most & (most - 1) or int(weights.max()) > most:
        raise ValueError(
            f"{op}: weights must be int32 and the first of them a power of two that none exceeds, got {most} first and "
            f"{int(weights.max())} largest, {str(weights.dtype).removeprefix('torch.')}; scale them"
        )
    if len(rows) > MOST_FLIPPED:
        raise ValueError(f"{op}: words must be at most {MOST_FLIPPED}, got {len(rows)}; use draw_words")
    _vector(op, "key", key, 32, (torch.uint8,))
    _counter(op, offset, len(ids))

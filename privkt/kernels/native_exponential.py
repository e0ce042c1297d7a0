"""The token ops over the native module: queries cut for threads, addresses handed down."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from privkt.kernels import native
from privkt.kernels.threads import parallel

isa = ""  # tests set it: the instruction set to run, or the best that there is
_PRODUCTS_A_THREAD = 1 << 23
_TOKENS_A_THREAD = 1 << 10
_WORDS_TOGETHER = 480  # where ranges of words end, so that blocks of the kernels are whole


def _vectors(rows: Tensor, bias: Tensor) -> tuple[int, ...]:
    return rows.data_ptr(), bias.data_ptr(), rows.shape[0], rows.shape[1], rows.stride(0)


def _queries(queries: Tensor, bias: Tensor, ids: Tensor | None, start: int, stop: int) -> tuple[int, ...]:
    """Where queries start...stop lie: among the rows of a table by their ids, or one after another."""
    if ids is not None:
        return (
            queries.data_ptr(),
            bias.data_ptr(),
            queries.shape[0],
            queries.stride(0),
            native._at(ids, start),
            stop - start,
        )
    return native._at(queries, start), native._at(bias, start), stop - start, queries.stride(0), 0, stop - start


def _how(shift: int, root: bool, last: int, weights: Tensor) -> tuple[int, ...]:
    return shift, root, last, weights.data_ptr(), weights.dtype == torch.int64


def _space(kernel: str, rows: Tensor, integers: str, *sizes: int) -> tuple[Tensor, ...]:
    """The workspace of blocks of threads, `integers` of 64 bits by the native module's count; a double is as long."""
    return native._workspace(kernel, rows, lambda: getattr(native.module(), integers)(*sizes))


def _end(space: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """What comes last: the instruction set on the CPU, in blocks of threads the workspace."""
    return tuple(map(native._at, space)) or (isa,)


def _grain(rows: Tensor) -> int:
    return _PRODUCTS_A_THREAD // max(rows.numel(), 1) + 1


def _count(queries: Tensor, ids: Tensor | None) -> int:
    return len(queries) if ids is None else len(ids)


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
) -> Tensor:
    count = _count(queries, ids)
    totals = rows.new_empty(count, dtype=torch.int64)
    words, how = _vectors(rows, bias), _how(shift, root, last, weights)
    space = _space("weight_totals", rows, "token_sums_workspace", count, len(rows))

    def run(start: int, stop: int) -> tuple[Any, ...]:
        return _queries(queries, query_bias, ids, start, stop), words, how, native._at(totals, start), *_end(space)

    native._split("weight_totals", rows.device, count, _grain(rows), run)
    return totals


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
) -> Tensor:
    count = _count(queries, ids)
    out = rows.new_empty(count, dtype=torch.int64)
    words, how = _vectors(rows, bias), _how(shift, root, last, weights)
    if ids is None:
        places = starts = torch.arange(count + 1, device=rows.device)
    else:  # the work is one row of weights for each different id; the draws are each occurrence's own
        ids, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
        places = torch.argsort(inverse, stable=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    counter = (bytes(key.tolist()), step % 2**64, offset)
    space = _space("exponential_draws", rows, "token_sums_workspace", len(starts) - 1, len(rows))
    end = (count, *_end(space)) if space else (isa,)

    def run(start: int, stop: int) -> tuple[Any, ...]:
        chosen = _queries(queries, query_bias, ids, start, stop)
        return chosen, words, how, native._at(starts, start), places.data_ptr(), out.data_ptr(), *counter, *end

    native._split("exponential_draws", rows.device, len(starts) - 1, _grain(rows), run)
    return out


def nearest_words(
    queries: Tensor, query_bias: Tensor, ids: Tensor | None, rows: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    count = _count(queries, ids)
    near = [rows.new_empty(count, k, dtype=torch.int32) for _ in range(2)]
    words = _vectors(rows, bias)
    space = _space("nearest_words", rows, "nearest_block_workspace", count, len(rows), k)

    def run(start: int, stop: int) -> tuple[Any, ...]:
        chosen = _queries(queries, query_bias, ids, start, stop)
        return chosen, words, k, native._at(near[0], start), native._at(near[1], start), *_end(space)

    native._split("nearest_words", rows.device, count, _grain(rows), run)
    return near[0], near[1]


def _rounds(words: int, threads: int) -> list[list[tuple[int, int, int, int]]]:
    """Pieces of all pairs of words, each pair in one; those of a round have no word in common.

    Each range against itself, then every two ranges as in a tournament: one stays, the others go round.
    """
    parts = 1 if threads == 1 else 2 * threads
    cuts = [words * part // parts // _WORDS_TOGETHER * _WORDS_TOGETHER for part in range(parts)] + [words]
    ranges = list(itertools.pairwise(cuts))
    rounds = [[(*own, *own) for own in ranges]]
    for _ in range(parts - 1):
        rounds.append(
            [(*min(a, b), *max(a, b)) for a, b in zip(ranges[: parts // 2], ranges[: parts // 2 - 1 : -1], strict=True)]
        )
        ranges = [ranges[0], ranges[-1], *ranges[1:-1]]
    return rounds


def _every_pair(kernel: str, rows: Tensor, run: Callable[[tuple[int, int, int, int]], tuple[Any, ...]]) -> None:
    work = len(rows) * rows.numel()
    for pieces in _rounds(len(rows), min(torch.get_num_threads(), work // _PRODUCTS_A_THREAD + 1)):

        def play(start: int, stop: int, pieces: list[tuple[int, int, int, int]] = pieces) -> None:
            for piece in pieces[start:stop]:
                native._call(kernel, rows.device, *run(piece))

        parallel(len(pieces), play, 1)


def table_nearest(rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    words, count = _vectors(rows, bias), len(rows)
    keys = torch.full((count, k), -1, dtype=torch.int64, device=rows.device)
    bounds = torch.full((count,), 2**31 - 1, dtype=torch.int32, device=rows.device)
    farthest = torch.zeros_like(bounds)
    places = keys.data_ptr(), bounds.data_ptr(), farthest.data_ptr()
    _every_pair("table_nearest", rows, lambda piece: (words, piece, k, *places, isa))
    for part in keys.split(1 << 12):  # its k words and no others, so nothing of what filled the list is left
        part.copy_(part.sort(1).values)
    return (keys & 0xFFFFFFFF).int(), (keys >> 32).int(), farthest


def table_totals(rows: Tensor, bias: Tensor, shift: int, root: bool, last: int, weights: Tensor) -> Tensor:
    totals = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    words, how = _vectors(rows, bias), _how(shift, root, last, weights)
    _every_pair("table_totals", rows, lambda piece: (words, piece, how, totals.data_ptr(), isa))
    return totals


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
) -> tuple[Tensor, Tensor]:
    count = _count(queries, ids)
    extremes = [rows.new_empty(count, dtype=torch.int32) for _ in range(2)]
    words, how = _vectors(rows, bias), _how(shift, root, last, values)
    space = _space("row_extremes", rows, "extremes_block_workspace", count, len(rows))

    def run(start: int, stop: int) -> tuple[Any, ...]:
        chosen = _queries(queries, query_bias, ids, start, stop)
        places = native._at(extremes[0], start), native._at(extremes[1], start)
        return chosen, words, how, word_values.data_ptr(), *places, *_end(space)

    native._split("row_extremes", rows.device, count, _grain(rows), run)
    return extremes[0], extremes[1]


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
) -> Tensor:
    out = torch.empty_like(ids)
    words, how, secret = _vectors(rows, bias), _how(shift, root, last, weights), bytes(key.tolist())
    near = (near_ids.data_ptr(), near_distances.data_ptr(), near_ids.shape[1])
    fixed = (rounds, most_listed, most_tail)
    end = (isa,) if native.in_blocks("rejection_draws", rows.device) is None else ()  # blocks need no workspace

    def run(start: int, stop: int) -> tuple[Any, ...]:
        piece = (native._at(ids, start), stop - start, native._at(out, start))
        return words, *near, how, fixed, *piece, secret, step % 2**64, offset + start, *end

    native._split("rejection_draws", rows.device, len(ids), _TOKENS_A_THREAD, run)
    return out


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
) -> Tensor:
    out = torch.empty_like(ids)
    words, how, secret = _vectors(rows, bias), _how(shift, root, last, weights), bytes(key.tolist())
    bits = int(weights[0]).bit_length() - 1
    space = _space("flip_draws", rows, "flip_block_workspace", len(ids), len(rows))

    def run(start: int, stop: int) -> tuple[Any, ...]:
        piece = (native._at(ids, start), stop - start, native._at(out, start))
        return words, how, bits, *piece, secret, step % 2**64, offset + start, *_end(space)

    native._split("flip_draws", rows.device, len(ids), _grain(rows), run)
    return out

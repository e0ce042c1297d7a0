"""Nearest words, extremes, draws by rejection and by coins: their truth, in Python's integers and slowly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from privkt.kernels.reference_exponential import below, level, levels_of, weight_totals, words

CHOICE_BLOCK = 10752


def _two(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    both = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2)
    return both[:, 0].contiguous(), both[:, 1].contiguous()


def distances_of(
    queries: Tensor, query_bias: Tensor, ids: Tensor | None, rows: Tensor, bias: Tensor
) -> list[list[int]]:
    places = range(len(queries)) if ids is None else ids.tolist()
    products = (queries.long() @ rows.long().T).tolist()
    own, other = query_bias.tolist(), bias.tolist()
    return [[max(own[i] + other[v] - 2 * dot, 0) for v, dot in enumerate(products[i])] for i in places]


def nearest_words(
    queries: Tensor, query_bias: Tensor, ids: Tensor | None, rows: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    every = distances_of(queries, query_bias, ids, rows, bias)
    near = [sorted((x, v) for v, x in enumerate(row))[:k] for row in every]
    both = torch.tensor(near, dtype=torch.int32).reshape(len(every), k, 2)
    return both[..., 1].contiguous(), both[..., 0].contiguous()


def table_nearest(rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    every = distances_of(rows, bias, None, rows, bias)
    farthest = torch.tensor([max(row) for row in every], dtype=torch.int32)
    return *nearest_words(rows, bias, None, rows, bias, k), farthest


def table_totals(rows: Tensor, bias: Tensor, shift: int, root: bool, last: int, weights: Tensor) -> Tensor:
    return weight_totals(rows, bias, None, rows, bias, shift, root, last, weights)


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
    by_level, by_word = values.tolist(), word_values.tolist()
    pairs = []
    for row in levels_of(queries, query_bias, ids, rows, bias, shift, root, last):
        own = [by_level[t] + by_word[v] for v, t in enumerate(row)]
        pairs.append((max(own), min(own)))
    return _two(pairs)


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
    every, secret, count = weights.tolist(), bytes(key.tolist()), len(rows)
    drawn = []
    for place, (word, row) in enumerate(zip(ids.tolist(), distances_of(rows, bias, ids, rows, bias), strict=True)):
        own = [every[level(x, shift, root, last)] for x in row]
        near = near_ids[word].tolist()
        beyond = [0 if v in near else weight for v, weight in enumerate(own)]
        listed = [own[v] for v in near]
        source = words(secret, step % 2**64, offset + place)
        if rounds:
            drawn.append(_in_fixed_time(near, listed, beyond, rounds, most_listed, most_tail, source))
            continue
        tail = listed[-1] if len(near) < count else 0
        while True:
            u = below(sum(listed) + count * tail, source)
            if u < sum(listed):
                drawn.append(near[next(j for j in range(len(near)) if u < sum(listed[: j + 1]))])
                break
            other, rest = divmod(u - sum(listed), tail)
            if rest < beyond[other]:
                drawn.append(other)
                break
    return torch.tensor(drawn, dtype=torch.int64)


def _in_fixed_time(
    near: list[int],
    listed: list[int],
    beyond: list[int],
    rounds: int,
    most_listed: int,
    most_tail: int,
    source: Iterator[int],
) -> int:
    count, found = len(beyond), None
    for _ in range(rounds):
        uniform, numbers = True, []
        for total in (most_listed + count * most_tail, count, most_tail):
            product = next(source) * total
            uniform &= product % 2**64 >= 2**64 % total
            numbers.append(product >> 64)
        u, which, whether = numbers
        if found is not None or not uniform:
            continue
        if u < sum(listed):
            found = near[next(j for j in range(len(near)) if u < sum(listed[: j + 1]))]
        elif u >= most_listed and whether < beyond[which]:
            found = which
    last = next(source) * count >> 64
    return last if found is None else found


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
    every, secret = weights.tolist(), bytes(key.tolist())
    bits, drawn = every[0].bit_length() - 1, []
    for place, row in enumerate(levels_of(rows, bias, ids, rows, bias, shift, root, last)):
        both = itertools.islice(words(secret, step % 2**64, offset + place), (len(row) + 1) // 2)
        coins = [half for word in both for half in (word % 2**32, word >> 32)]
        choices = words(secret, step % 2**64, offset + place, CHOICE_BLOCK)
        fallen = [v for v, (t, coin) in enumerate(zip(row, coins, strict=False)) if coin >> 32 - bits < every[t]]
        kept = -1
        for n, v in enumerate(fallen, 1):
            if below(n, choices) == 0:
                kept = v
        drawn.append(kept)
    return torch.tensor(drawn, dtype=torch.int64)

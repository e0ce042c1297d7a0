"""The exponential mechanism's truth: distances, levels, weights and the draw, in Python's integers and slowly.

Nothing here is shared with the native kernels but the definition of a token's words of key stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from privkt.kernels.reference_noise import chacha20

TOKEN_BLOCK = 1 << 61
TOKEN_BITS, NUMBER_BITS = 46, 15
MOST = 2**30 - 1


def words(key: bytes, step: int, token: int, number: int = 0) -> Iterator[int]:
    """The token's own words of 64 bits, without end, from its block `number` on."""
    while True:
        block = TOKEN_BLOCK | (number % 2**NUMBER_BITS) << TOKEN_BITS | token
        inputs = [block % 2**32, block >> 32, step % 2**32, step >> 32]
        out = chacha20(key, np.array(inputs, np.uint32)[:, None])[:, 0].tolist()
        yield from (low | high << 32 for low, high in zip(out[::2], out[1::2], strict=True))
        number += 1


def below(total: int, source: Iterator[int]) -> int:
    """Uniform in [0, total), without bias (D. Lemire 2019)."""
    while True:
        product = next(source) * total
        if product % 2**64 >= 2**64 % total:
            return product >> 64


def level(x: int, shift: int, root: bool, last: int) -> int:
    """The level of a distance: shifted, its integer root if wanted, at most `last`."""
    x = min(max(x, 0), MOST >> max(-shift, 0))
    x = x << -shift if shift < 0 else x >> shift
    return min(isqrt(x) if root else x, last)


def select(weights: list[int], r: int) -> int:
    """The place whose stretch of [0, sum of weights) holds r."""
    for place, weight in enumerate(weights):
        if r < weight:
            return place
        r -= weight
    raise AssertionError("r must be below the sum of the weights")


def levels_of(
    queries: Tensor,
    query_bias: Tensor,
    ids: Tensor | None,
    rows: Tensor,
    bias: Tensor,
    shift: int,
    root: bool,
    last: int,
) -> list[list[int]]:
    """[queries, words]: every level. Small cases only."""
    places = range(len(queries)) if ids is None else ids.tolist()
    own, vectors, row_bias, word_bias = queries.tolist(), rows.tolist(), query_bias.tolist(), bias.tolist()
    return [
        [
            level(
                row_bias[i] + word_bias[v] - 2 * sum(a * b for a, b in zip(own[i], w, strict=True)), shift, root, last
            )
            for v, w in enumerate(vectors)
        ]
        for i in places
    ]


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
    every = weights.tolist()
    levels = levels_of(queries, query_bias, ids, rows, bias, shift, root, last)
    return torch.tensor([sum(every[t] for t in row) for row in levels], dtype=torch.int64)


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
    every, secret = weights.tolist(), bytes(key.tolist())
    drawn = []
    for place, row in enumerate(levels_of(queries, query_bias, ids, rows, bias, shift, root, last)):
        own = [every[t] for t in row]
        drawn.append(select(own, below(sum(own), words(secret, step % 2**64, offset + place))))
    return torch.tensor(drawn, dtype=torch.int64)

"""Token kernels made of blocks of threads draw the CPU's words: on a GPU, and played, threads in either order.

What is played is the source that nvcc compiles; a product of tensor cores is made from the fragments that their threads
load. Copies land at once, or as late as they are waited for.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from privkt.kernels import (
    ByteTable,
    FixedTime,
    Levels,
    Neighbours,
    draw_flipped,
    draw_words,
    draw_words_near,
    fixed_time,
    log_extremes,
    native,
    native_exponential,
    nearest_words,
    neighbours,
    row_extremes,
    weight_totals,
)
from privkt.privacy.weights import WeightTable

KEY = bytes(range(7, 39))
There = Callable[..., Any]
# words, width, queries: on both sides of panels of 128, tiles of 256, 64 bytes of a stage, 16 and 4 of a copy
SHAPES = [
    (1, 1, 1),
    (2, 16, 3),
    (127, 64, 129),
    (128, 65, 1),
    (257, 4, 130),
    (300, 67, 128),
    (513, 130, 5),
    (1000, 20, 2),
]


def bytes_of(count: int, width: int, seed: int, largest: int = 127) -> tuple[Tensor, Tensor]:
    """Vectors and square norms; some are zero and some are met twice."""
    source = torch.Generator().manual_seed(seed)
    rows = torch.randint(-largest, largest + 1, (count, width), generator=source, dtype=torch.int8)
    rows[3::17] = 0
    rows[5::11] = rows[0]
    return rows, rows.int().square().sum(1, dtype=torch.int32)


def falling(last: int, largest: int, rate: float, wide: bool = False) -> Tensor:
    weights = [largest, *(max(1, int(largest * math.exp(-rate * t))) for t in range(1, last + 1))]
    return torch.tensor(weights, dtype=torch.int64 if wide else torch.int32)


def same(there: There, here: There, function: Callable[..., Any], *args: Any) -> None:
    found, wanted = there(function, *args), here(function, *args)
    pairs = [(found, wanted)] if isinstance(found, Tensor) else zip(found, wanted, strict=True)
    for a, b in pairs:
        assert torch.equal(a, b)


@pytest.mark.parametrize(("words", "width", "count"), SHAPES)
def test_totals_draws_and_extremes(there: There, here: There, words: int, width: int, count: int) -> None:
    levels = Levels(300, 2)

    def all_of_them(rows: Tensor, sqnorms: Tensor, queries: Tensor, bias: Tensor, *weights: Tensor) -> list[Tensor]:
        table, ids, found = ByteTable(rows, sqnorms, 1.0), torch.arange(count, device=rows.device) * 5 % words // 2, []
        for where in ({"queries": (queries, bias)}, {"ids": ids}):
            for each in weights:
                found.append(weight_totals(table, levels, each, **where))
                found.append(draw_words(table, levels, each, KEY, 2**64 - 1, 2**40, **where))
            values = weights[0].flip(0) // 2 - 2**28
            found.extend(row_extremes(table, levels, values, sqnorms % 1000 - 2**29, **where))
        return found

    table, queries = bytes_of(words, width, 1), bytes_of(count, width, 2)
    weights = falling(300, 2**30, 0.04), falling(300, 2**62 // words - 1, 0.04, wide=True)
    same(there, here, all_of_them, *table, *queries, *weights)


@pytest.mark.parametrize(
    ("words", "width", "count", "k"), [(1, 1, 1, 1), (300, 3, 140, 40), (900, 66, 3, 130), (520, 8, 2, 520)]
)
def test_nearest_words(there: There, here: There, words: int, width: int, count: int, k: int) -> None:
    """Few values in few places: many words are equally far. The farthest come first, so that lists overflow."""

    def nearest(rows: Tensor, sqnorms: Tensor, queries: Tensor, bias: Tensor) -> list[Tensor]:
        table = ByteTable(rows, sqnorms, 1.0)
        return [
            *nearest_words(table, 1, queries=(queries, bias)),
            *nearest_words(table, k, queries=(queries, bias)),
            *nearest_words(table, k, ids=torch.arange(min(count, words), device=rows.device).flip(0)),
        ]

    rows, sqnorms = bytes_of(words, width, 1, largest=2)
    rows = rows[sqnorms.argsort(descending=True)]
    queries = bytes_of(count, width, 2, largest=1)
    same(there, here, nearest, rows, rows.int().square().sum(1, dtype=torch.int32), *queries)


@pytest.mark.parametrize("rounds", [0, 3])
@pytest.mark.parametrize(
    ("words", "width", "k", "epsilon"), [(2, 1, 1, 3), (60, 9, 7, 6), (90, 300, 64, 12), (41, 5, 41, 9)]
)
def test_draws_from_a_list(there: There, here: There, words, width, k, epsilon, rounds: int) -> None:
    """Few rounds of a fixed time, so that what is left over is drawn too."""
    table = ByteTable(*bytes_of(words, width, 3, largest=9), 1.0)
    levels, near, ids = Levels(20, 3), neighbours(table, k), torch.arange(83) * 7 % words
    weights = torch.from_numpy(WeightTable.exponential(epsilon, 20, words).array())
    bounds = FixedTime(rounds, int(weights[0]) * k, int(weights[1]))

    def drawn(
        rows: Tensor, sqnorms: Tensor, near_ids: Tensor, distances: Tensor, ids: Tensor, *every: Tensor
    ) -> list[Tensor]:
        table, near = ByteTable(rows, sqnorms, 1.0), Neighbours(near_ids, distances)
        fixed = bounds if rounds else None
        return [draw_words_near(table, near, levels, w, ids, KEY, 3, 2**46 - 90, fixed=fixed) for w in every]

    args = (table.rows, table.sqnorms, near.ids, near.distances, ids)
    same(there, here, drawn, *args, weights, weights.long())
    assert len(set(there(drawn, *args, weights)[0].tolist())) > 1


def test_the_list_its_rounds_and_what_certifies_it(there: There, here: There) -> None:
    """Everything that makes a table's list is on the table's device."""
    levels, weights = Levels(20, 3), falling(20, 2**30, 0.3)

    def made(rows: Tensor, sqnorms: Tensor, weights: Tensor) -> list[Tensor]:
        table = ByteTable(rows, sqnorms, 1.0)
        near = neighbours(table, 12)
        bounds = fixed_time(table, near, levels, weights)
        logs = log_extremes(table, levels, [1000 - 30 * t for t in range(21)], list(range(len(rows))))
        return [near.ids, near.distances, torch.tensor([bounds.rounds, bounds.most_listed, bounds.most_tail]), *logs]

    same(there, here, made, *bytes_of(70, 9, 4, largest=9), weights)


@pytest.mark.parametrize(("words", "width", "count"), [(1, 1, 1), (129, 66, 130), (300, 4, 5)])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_permute_and_flip(there: There, here: There, words: int, width: int, count: int, rate: float) -> None:
    def drawn(rows: Tensor, sqnorms: Tensor, ids: Tensor, *every: Tensor) -> list[Tensor]:
        table = ByteTable(rows, sqnorms, 1.0)
        return [draw_flipped(table, Levels(40, 2), weights, ids, KEY, 9, 2**46 - 200) for weights in every]

    ids = torch.arange(count) * 3 % words
    same(there, here, drawn, *bytes_of(words, width, 5, 50), ids, falling(40, 2**30, rate), falling(40, 2, rate))


@pytest.fixture
def many_rounds() -> Iterator[None]:
    """As little memory as can be: 128 queries a round."""
    before = native.module().limit_token_space(1)
    yield
    native.module().limit_token_space(before)


@pytest.mark.usefixtures("many_rounds")
def test_rounds_change_nothing(there: There, here: There) -> None:
    levels = Levels(200, 2)

    def all_of_them(
        rows: Tensor, sqnorms: Tensor, queries: Tensor, bias: Tensor, ids: Tensor, weights: Tensor
    ) -> list[Tensor]:
        table, each = ByteTable(rows, sqnorms, 1.0), {"queries": (queries, bias)}
        return [
            weight_totals(table, levels, weights, **each),
            draw_words(table, levels, weights, KEY, 2, 77, **each),
            draw_words(table, levels, weights, KEY, 2, 77, ids=ids),
            draw_flipped(table, levels, weights, ids, KEY, 3, 77),
            *nearest_words(table, 9, **each),
            *nearest_words(table, 9, ids=ids),
        ]

    ids = torch.arange(400) * 11 % 290
    same(there, here, all_of_them, *bytes_of(290, 6, 6), *bytes_of(300, 6, 7), ids, falling(200, 2**30, 0.1))


def test_stripes_of_words_change_nothing(there: There, here: There) -> None:
    """41 panels of words for one query, in 32 stripes of two: some have no words."""
    levels, values = Levels(200), torch.arange(201, dtype=torch.int32)

    def all_of_them(rows: Tensor, sqnorms: Tensor, queries: Tensor, bias: Tensor, values: Tensor) -> list[Tensor]:
        table, one = ByteTable(rows, sqnorms, 1.0), {"queries": (queries[:1], bias[:1])}
        return [*row_extremes(table, levels, values, sqnorms, **one), *nearest_words(table, 64, **one)]

    same(there, here, all_of_them, *bytes_of(5200, 1, 8), *bytes_of(1, 1, 7), values)


@pytest.mark.parametrize(
    ("width", "stride", "start"), [(16, 32, 0), (16, 20, 4), (19, 21, 1), (3, 64, 16), (130, 132, 0)]
)
def test_bytes_lie_anywhere(there: There, here: There, width: int, stride: int, start: int) -> None:
    """Whole copies need addresses that 16 divides, or 4; what lies between rows never counts."""

    def totals(memory: Tensor, weights: Tensor) -> Tensor:
        rows = memory[start : start + 5 * stride].view(5, stride)[:, :width]
        table = ByteTable(rows, rows.int().square().sum(1, dtype=torch.int32), 1.0)
        return weight_totals(table, Levels(900), weights, ids=torch.arange(5, device=rows.device))

    memory = torch.randint(-128, 128, (1024,), generator=torch.Generator().manual_seed(9), dtype=torch.int8)
    same(there, here, totals, memory, falling(900, 2**30, 0.01))


def test_extreme_bytes_are_multiplied_exactly(there: There, here: There) -> None:
    rows = torch.tensor([[-128], [127]], dtype=torch.int8).expand(2, 2**14).contiguous()
    sqnorms = torch.tensor([2**28, 127**2 * 2**14], dtype=torch.int32)

    def totals(rows: Tensor, sqnorms: Tensor, weights: Tensor) -> Tensor:
        table = ByteTable(rows, sqnorms, 1.0)
        return weight_totals(table, Levels(32767), weights, queries=(rows, sqnorms))

    weights = torch.arange(40_000, 7_232, -1)
    assert there(totals, rows, sqnorms, weights).tolist() == [40_000 + int(weights[math.isqrt(255**2 * 2**14)])] * 2
    same(there, here, totals, rows, sqnorms, weights)


@pytest.mark.usefixtures("played")
def test_every_draw_is_enumerated() -> None:
    """For each query, each r in [0, total): a word is selected exactly as often as its weight says."""
    rows, sqnorms = bytes_of(300, 3, 4, largest=3)
    weights = torch.tensor([9, 7, 7, 4, 3, 2, 2, 1, 1, 1])
    for query in (0, 299):
        x = (rows.long() - rows[query].long()).square().sum(1).tolist()
        own = [int(weights[min(math.isqrt(v), 9)]) for v in x]
        total = sum(own)
        r, out, ids = torch.arange(total), torch.full((total,), -1), torch.full((total,), query)
        words, how = native_exponential._vectors(rows, sqnorms), native_exponential._how(0, True, 9, weights)
        queries = native_exponential._queries(rows, sqnorms, ids, 0, total)
        space = torch.empty(native.module().token_sums_workspace(total, 300), dtype=torch.int64)
        run = native.module().selected_words_blocks
        run(queries, words, how, r.data_ptr(), out.data_ptr(), space.data_ptr(), 0)
        assert Counter(out.tolist()) == Counter(dict(enumerate(own)))
        assert torch.equal(out, out.sort().values)


def test_nothing_in_gives_nothing(there: There) -> None:
    def empty(rows: Tensor, sqnorms: Tensor, weights: Tensor) -> list[Tensor]:
        table, ids = ByteTable(rows, sqnorms, 1.0), torch.arange(0, device=rows.device)
        near, values = Neighbours(weights[:1, None].expand(3, 1).contiguous(), sqnorms[:, None]), weights
        return [
            weight_totals(table, Levels(1), weights, ids=ids),
            draw_words(table, Levels(1), weights, KEY, 0, ids=ids),
            draw_words_near(table, near, Levels(1), weights, ids, KEY, 0),
            draw_flipped(table, Levels(1), weights, ids, KEY, 0),
            *nearest_words(table, 2, ids=ids),
            *row_extremes(table, Levels(1), values, sqnorms, ids=ids),
        ]

    assert [len(x) for x in there(empty, *bytes_of(3, 2, 1), torch.tensor([2, 1], dtype=torch.int32))] == [0] * 8

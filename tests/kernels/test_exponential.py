"""The exponential mechanism's draws: agreement with big integers, exact enumeration, what never shows in a result."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.kernels import (
    ByteTable,
    Levels,
    byte_table,
    draw_words,
    native,
    native_exponential,
    quantised,
    weight_totals,
)
from privkt.kernels import reference_exponential as reference
from privkt.testing.statistics import CUT_OFF, chi_square_p

KEY = bytes(range(32))
ISAS = native.module().TOKEN_ISAS.split(",")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    try:
        native.module().token_isa(request.param)
    except RuntimeError:
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(native_exponential, "isa", request.param)
    return request.param


def table_of(words: int, width: int, seed: int = 0, largest: int = 127) -> ByteTable:
    source = torch.Generator().manual_seed(seed)
    rows = torch.randint(-largest, largest + 1, (words, width), generator=source, dtype=torch.int8)
    return ByteTable(rows, rows.int().square().sum(1, dtype=torch.int32), 1.0)


def falling(last: int, largest: int, rate: float, wide: bool) -> torch.Tensor:
    weights = [largest, *(max(1, int(largest * math.exp(-rate * t) * 0.999)) for t in range(1, last + 1))]
    return torch.tensor(weights, dtype=torch.int64 if wide else torch.int32)


def queries_of(table: ByteTable, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = table_of(count, table.rows.shape[1], seed)
    return drawn.rows, drawn.sqnorms


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 70),
    st.integers(1, 37),
    st.integers(0, 9),
    st.integers(-8, 8),
    st.booleans(),
    st.integers(0, 900),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**46 - 10),
)
def test_native_draws_are_the_reference(words, width, count, shift, root, last, wide, step, offset) -> None:
    """Wide weights fill 2^62, so that a quarter of the words of key stream is drawn again."""
    table = table_of(words, width, words * 40 + width)
    largest = 2**62 // words - 1 if wide else 2**31 - 1
    levels, weights = Levels(last, shift, root), falling(last, largest, 10 / (last + 1), wide)
    ids = torch.arange(count) * 7 % words
    for where in ({"queries": queries_of(table, count, step % 99)}, {"ids": ids}):
        rows, bias = where.get("queries", (table.rows, table.sqnorms))
        arguments = (rows, bias, where.get("ids"), table.rows, table.sqnorms, shift, root, last, weights)
        assert torch.equal(weight_totals(table, levels, weights, **where), reference.weight_totals(*arguments))
        key = torch.tensor(list(KEY), dtype=torch.uint8)
        expected = reference.exponential_draws(*arguments, key, step, offset)
        assert torch.equal(draw_words(table, levels, weights, KEY, step, offset, **where), expected)


@pytest.mark.parametrize(("words", "width", "count"), [(1, 1, 1), (257, 3, 13), (700, 130, 485), (1000, 2, 30)])
def test_instruction_sets_agree(isa: str, words: int, width: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes on both sides of tiles, panels, blocks of queries and lanes of bytes."""
    table = table_of(words, width, 1)
    weights = falling(200, 2**30, 0.05, wide=False)
    levels, queries = Levels(200, 3), queries_of(table, count, 2)
    for each in (weights, weights.long()):
        totals = weight_totals(table, levels, each, queries=queries)
        drawn = draw_words(table, levels, each, KEY, 9, 5, queries=queries)
        monkeypatch.setattr(native_exponential, "isa", "scalar")
        assert torch.equal(totals, weight_totals(table, levels, weights, queries=queries))
        assert torch.equal(drawn, draw_words(table, levels, weights, KEY, 9, 5, queries=queries))
        monkeypatch.setattr(native_exponential, "isa", isa)


def test_extreme_bytes_are_multiplied_exactly(isa: str) -> None:
    """128^2 times 16384, the largest product, and its opposite; every level beyond the last is the last."""
    rows = torch.tensor([[-128], [127]], dtype=torch.int8).expand(2, 2**14).contiguous()
    table = ByteTable(rows, torch.tensor([2**28, 127**2 * 2**14], dtype=torch.int32), 1.0)
    weights = torch.arange(40_000, 7_232, -1)
    got = weight_totals(table, Levels(32767), weights, queries=(rows, table.sqnorms))
    level = math.isqrt(255**2 * 2**14)
    assert got.tolist() == [40_000 + int(weights[level])] * 2


def test_levels_are_integer_roots(isa: str) -> None:
    """All distances beside a square, below 2^30: as float32 they would round across it."""
    table = ByteTable(torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1, dtype=torch.int32), 1.0)
    squares = torch.arange(1, 32768) ** 2
    x = torch.cat([squares - 1, squares, squares + 1, torch.tensor([2**30 - 1, 2**30])]).int()
    weights = torch.arange(1, 32769)
    levels = weight_totals(table, Levels(32767), weights, queries=(x.new_zeros(len(x), 1).to(torch.int8), x)) - 1
    assert levels.tolist() == [min(math.isqrt(v), 32767) for v in x.tolist()]


def test_every_draw_is_enumerated(isa: str) -> None:
    """For each query, each r in [0, total): a word is selected exactly as often as its weight says."""
    table, levels = table_of(300, 3, 4, largest=3), Levels(9)
    weights = torch.tensor([9, 7, 7, 4, 3, 2, 2, 1, 1, 1])
    for query in (0, 17, 299):
        own = [int(weights[t]) for t in levels_of(table, query, levels)]
        total = sum(own)
        r, out = torch.arange(total), torch.full((total,), -1)
        ids = torch.full((total,), query)
        words, how = (
            native_exponential._vectors(table.rows, table.sqnorms),
            native_exponential._how(0, True, 9, weights),
        )
        queries = native_exponential._queries(table.rows, table.sqnorms, ids, 0, total)
        native.module().selected_words_cpu(queries, words, how, r.data_ptr(), out.data_ptr(), isa)
        assert Counter(out.tolist()) == Counter(dict(enumerate(own)))
        assert torch.equal(out, out.sort().values)


def levels_of(table: ByteTable, query: int, levels: Levels) -> list[int]:
    x = (table.rows.long() - table.rows[query].long()).square().sum(1).tolist()
    return [reference.level(v, levels.shift, levels.root, levels.last) for v in x]


@pytest.mark.parametrize("total", [1, 2, 3, 5, 6, 7, 100, 128, 200, 255])
def test_integers_below_a_total_are_equally_many(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule on words of 8 bits: of all 256, each value keeps floor(256 / total)."""
    kept = Counter(w * total >> 8 for w in range(256) if w * total % 256 >= 256 % total)
    assert kept == Counter(dict.fromkeys(range(total), 256 // total))
    bound = 2**64 // total * total  # of 64 bits, those that are kept
    assert reference.below(total, iter([2**64 - 1, 2**63])) in range(total)
    assert bound > 2**63


@pytest.mark.parametrize("by_ids", [True, False])
def test_draws_have_the_distribution(by_ids: bool) -> None:
    table, levels = table_of(40, 4, 5, largest=20), Levels(60)
    weights, count = falling(60, 2**30, 0.15, wide=False), 200_000
    own = [int(weights[t]) for t in levels_of(table, 3, levels)]
    ids = torch.full((count,), 3)
    queries = (table.rows[ids], table.sqnorms[ids])
    drawn = draw_words(table, levels, weights, KEY, 1, **({"ids": ids} if by_ids else {"queries": queries}))
    assert chi_square_p(drawn.tolist(), {v: w / sum(own) for v, w in enumerate(own)}) > CUT_OFF


def test_rare_words_are_drawn_as_often_as_they_must() -> None:
    """A head and 2^16 tails of 2^-26 each, 32 hits expected: noise of 24 bits would never reach one."""
    rows = torch.ones(1 + 2**16, 1, dtype=torch.int8)
    rows[0] = 0
    table = ByteTable(rows, rows[:, 0].int(), 1.0)
    drawn = draw_words(
        table, Levels(1), torch.tensor([2**45, 2**19]), KEY, 2, ids=torch.zeros(2**15, dtype=torch.int64)
    )
    hits = drawn[drawn > 0]
    assert 9 <= len(hits) <= 67  # outside: 7e-7 by the Poisson law of mean 32
    assert len(set(hits.tolist())) == len(hits)  # a tile repeated would show: two equal with probability 1/65


@pytest.mark.usefixtures("implementation")
def test_a_draw_depends_on_its_own_place_alone() -> None:
    table, levels = table_of(23, 6, 6), Levels(120, 4)
    weights = falling(120, 2**30, 0.05, wide=False)
    ids = torch.arange(30) * 5 % 23
    whole = draw_words(table, levels, weights, KEY, 4, 100, ids=ids)
    assert torch.equal(whole[11:19], draw_words(table, levels, weights, KEY, 4, 111, ids=ids[11:19]))
    assert torch.equal(
        whole, draw_words(table, levels, weights, KEY, 4, 100, queries=(table.rows[ids], table.sqnorms[ids]))
    )
    assert not torch.equal(whole, draw_words(table, levels, weights, KEY, 5, 100, ids=ids))
    same = draw_words(table, levels, falling(120, 2**30, 0.0, wide=False), KEY, 4, ids=ids * 0)
    assert len(set(same.tolist())) > 10  # equal tokens of a batch, independently


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table, levels = table_of(301, 5, 7), Levels(300)
    weights, ids = falling(300, 2**30, 0.05, wide=False), torch.arange(1000) * 11 % 301
    monkeypatch.setattr(native_exponential, "_PRODUCTS_A_THREAD", 5000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = draw_words(table, levels, weights, KEY, 0, ids=ids), weight_totals(table, levels, weights, ids=ids)
        torch.set_num_threads(3)
        assert torch.equal(draw_words(table, levels, weights, KEY, 0, ids=ids), alone[0])
        assert torch.equal(weight_totals(table, levels, weights, ids=ids), alone[1])
    finally:
        torch.set_num_threads(threads)


def test_quantising_is_public_and_total() -> None:
    table = byte_table(torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 0.0]]))
    assert table.rows.tolist() == [[64, -127], [32, 0], [0, 0]]
    assert table.sqnorms.tolist() == [64**2 + 127**2, 32**2, 0]
    wild = torch.tensor([[1e30, -1.0], [math.nan, 0.0], [math.inf, 0.0], [1.0, -2.0]])
    rows, bias = quantised(table, wild)
    assert rows.tolist() == [[127, -64], [0, 0], [0, 0], [64, -127]]
    weights = torch.tensor([5, 4, 3, 2, 1])
    totals = weight_totals(table, Levels(4, 6), weights, queries=(rows, bias))
    assert totals.tolist()[1:3] == [3, 3]  # all words at the last level: uniform
    zeros = byte_table(torch.zeros(2, 3))
    assert (zeros.rows.tolist(), zeros.scale) == ([[0] * 3] * 2, 1.0)
    assert draw_words(zeros, Levels(4), weights, KEY, 0, ids=torch.zeros(0, dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_quantising_by_parts_gives_each_vector_what_it_gets_alone_and_leaves_the_input_as_it_is(
    dtype: torch.dtype,
) -> None:
    given = (torch.randn(1500, 37, generator=torch.Generator().manual_seed(5)) * 40).to(dtype)
    given[700, 3], given[701, 0] = math.nan, math.inf
    before = given.clone()
    table = byte_table(torch.full((1, 37), 100.0))
    rows, bias = quantised(table, given)
    assert torch.equal(given.nan_to_num(), before.nan_to_num())
    assert given.isnan().sum() == 1
    for i in (0, 221, 222, 699, 700, 701, 702, 1499):  # parts of 8,192 numbers end at 221
        alone = quantised(table, before[i : i + 1])
        assert torch.equal(rows[i], alone[0][0])
        assert bias[i] == alone[1][0]


TABLE, WEIGHTS, IDS = table_of(3, 2), torch.tensor([2, 1]), torch.tensor([0, 2])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: draw_words(TABLE, Levels(1), WEIGHTS, KEY, 0, ids=torch.tensor([3])),
            "exponential_draws: ids must be in [0, 3), got one outside; map every token into the vocabulary",
        ),
        (
            lambda: draw_words(TABLE, Levels(1), torch.tensor([2, 0]), KEY, 0, ids=IDS),
            "exponential_draws: weights must be at least 1, got 0; an output that cannot come has no guarantee",
        ),
        (
            lambda: weight_totals(TABLE, Levels(1), torch.tensor([2**61, 1]), ids=IDS),
            "weight_totals: words times the largest weight must be below 2^62, got 3 * 2305843009213693952; "
            "use fewer bits",
        ),
        (
            lambda: weight_totals(TABLE, Levels(2), WEIGHTS, ids=IDS),
            "weight_totals: weights must have shape [3], got [2]; reshape it before the call",
        ),
        (
            lambda: draw_words(TABLE, Levels(1), WEIGHTS, KEY, 0, 2**46 - 1, ids=IDS),
            "exponential_draws: offset + n must be in [0, 2^46], got 70368744177663 + 2; use the next step",
        ),
        (
            lambda: draw_words(TABLE, Levels(1), WEIGHTS, KEY, 0),
            "draw_words: one of ids and queries must be given, got none",
        ),
        (
            lambda: weight_totals(TABLE, Levels(1), WEIGHTS, queries=(TABLE.rows.float(), TABLE.sqnorms)),
            "weight_totals: queries must be int8, got float32; quantise them with byte_table or quantised",
        ),
        (
            lambda: byte_table(torch.tensor([[math.nan]])),
            "byte_table: embeddings must be finite, got one that is not; mend the public table",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message

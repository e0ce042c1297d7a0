"""One pass over all pairs of a table's words: the reference, any cutting into pieces, and a bounded, exact search."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.kernels import (
    ByteTable,
    Levels,
    largest_spread,
    log_extremes,
    native,
    native_exponential,
    nearest_words,
    reference_exponential,
    row_extremes,
    table_index,
    table_totals,
    tables,
    weight_totals,
)
from privkt.kernels import reference_rejection as reference
from privkt.kernels.tables import levels_of
from privkt.privacy.weights import WeightTable, floor_logs


@pytest.fixture(params=native.module().TOKEN_ISAS.split(","))
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


def weights_of(epsilon: float, last: int, words: int) -> torch.Tensor:
    return torch.from_numpy(WeightTable.exponential(epsilon, last, words).array())


def cut_in(parts: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As so many threads would, ranges ending on multiples of `together`."""
    rounds = native_exponential._rounds
    monkeypatch.setattr(native_exponential, "_WORDS_TOGETHER", together)
    monkeypatch.setattr(native_exponential, "_rounds", lambda words, threads: rounds(words, parts))


@pytest.mark.parametrize(("words", "width", "k"), [(1, 1, 1), (33, 1, 33), (70, 37, 5), (300, 3, 64)])
def test_the_pass_is_the_reference(isa: str, words: int, width: int, k: int) -> None:
    """Few values in few places: many words are equally far, and lower ids come first."""
    table, levels = table_of(words, width, 1, largest=2), Levels(30, -1)
    index = table_index(table, k)
    expected = reference.table_nearest(table.rows, table.sqnorms, k)
    for got, each in zip((index.near.ids, index.near.distances, index.farthest), expected, strict=True):
        assert torch.equal(got, each)
    for weights in (weights_of(9, 30, words), weights_of(9, 30, words).long() << 20):
        expected = reference.table_totals(table.rows, table.sqnorms, -1, True, 30, weights)
        assert torch.equal(table_totals(table, levels, weights), expected)


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("together", [1, 480])
def test_pieces_hold_every_pair_once(isa: str, parts: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd sizes on both sides of blocks, panels and tiles: as the passes that compute each pair twice."""
    table, levels = table_of(1501, 19, 2, largest=9), Levels(60, 1)
    weights, every = weights_of(12, 60, 1501), torch.arange(1501)
    cut_in(parts, together, monkeypatch)
    index = table_index(table, 23)
    for got, expected in zip((index.near.ids, index.near.distances), nearest_words(table, 23, ids=every), strict=True):
        assert torch.equal(got, expected)
    for each in (weights, weights.long()):
        assert torch.equal(table_totals(table, levels, each), weight_totals(table, levels, each, ids=every))


@pytest.mark.parametrize(("words", "threads"), [(1, 1), (2, 2), (999, 1), (999, 3), (5000, 4)])
def test_a_round_shares_no_word_and_all_rounds_hold_every_pair_once(words: int, threads: int) -> None:
    native_rounds = native_exponential._rounds(words, threads)
    seen = torch.zeros(words, words, dtype=torch.uint8)
    for pieces in native_rounds:
        used: list[int] = []
        for start, stop, other, end in pieces:
            used += [*range(start, stop), *(range(other, end) if other != start else ())]
            seen[start:stop, other:end] += 1
            if (start, stop) != (other, end):
                seen[other:end, start:stop] += 1
        assert len(used) == len(set(used))
    assert int(seen.min()) == int(seen.max()) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 90),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(0.5, 40),
    st.integers(0, 99),
)
def test_the_largest_spread_is_that_of_all_rows(words, width, largest, k, epsilon, seed) -> None:
    """In tables with many equal words too, and lists from one word to all."""
    table = table_of(words, width, seed, largest)
    index, levels = table_index(table, k), Levels(40, 2)
    weights = weights_of(epsilon, 40, words)
    logs = floor_logs(weights.numpy()).tolist(), floor_logs(table_totals(table, levels, weights).numpy()).tolist()
    most, least = log_extremes(table, levels, *logs)
    with patch.object(tables, "_FIRST_LOOK", 1):  # else one look would be at all of so few words
        assert largest_spread(table, index, levels, *logs) == int((most - least).max())


def test_few_rows_are_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word stands apart: its row, and those that could be as costly."""
    table = table_of(3000, 8, 4, largest=20)
    table.rows[17], table.sqnorms[17] = 127, 127**2 * 8
    levels, index = Levels(400), table_index(table, 16)
    weights = weights_of(20, 400, 3000)
    logs = floor_logs(weights.numpy()).tolist(), floor_logs(table_totals(table, levels, weights).numpy()).tolist()
    looked: list[int] = []

    def counted(*arguments, ids):
        looked.extend(ids.tolist())
        return row_extremes(*arguments, ids=ids)

    monkeypatch.setattr(tables, "row_extremes", counted)
    most, least = log_extremes(table, levels, *logs)
    spread = int((most - least).max())
    assert largest_spread(table, index, levels, *logs) == spread
    assert 0 < len(looked) < 1500
    assert len(set(looked)) == len(looked)
    assert 17 in looked


def test_levels_of_distances_are_the_reference() -> None:
    x = torch.tensor([[0, 1, 3, 4], [15, 16, 2**30, 2**31 - 1]], dtype=torch.int32)
    for levels in (Levels(32767), Levels(5), Levels(900, 3, root=False), Levels(700, -4)):
        how = (levels.shift, levels.root, levels.last)
        expected = [[reference_exponential.level(v, *how) for v in row] for row in x.tolist()]
        assert levels_of(x, levels).tolist() == expected


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda table: table_index(table, 0),
            "table_nearest: k must be from 1 to the 3 words, got 0; ask for fewer",
        ),
        (
            lambda table: table_totals(table, Levels(1), torch.tensor([2, 0])),
            "table_totals: weights must be at least 1, got 0; an output that cannot come has no guarantee",
        ),
        (
            lambda table: largest_spread(table, table_index(table), Levels(1), [1, 2], [3, 3, 3]),
            "largest_spread: log_weights must not grow with their level, got some that do; use log_extremes",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call(table_of(3, 2))
    assert str(caught.value) == message

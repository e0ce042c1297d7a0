"""Draws from a list of neighbours, nearest words and extremes: the reference, exact enumeration, and fixed time."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.kernels import (
    ByteTable,
    FixedTime,
    Levels,
    Neighbours,
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
from privkt.kernels import reference_exponential as streaming
from privkt.kernels import reference_rejection as reference
from privkt.privacy.weights import WeightTable, exact_epsilon, floor_logs
from privkt.testing.statistics import CUT_OFF, chi_square_p

KEY = bytes(range(32))
KEY_TENSOR = torch.tensor(list(KEY), dtype=torch.uint8)


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


def own_weights(table: ByteTable, word: int, levels: Levels, weights: torch.Tensor) -> list[int]:
    x = (table.rows.long() - table.rows[word].long()).square().sum(1).tolist()
    return [int(weights[streaming.level(v, levels.shift, levels.root, levels.last)]) for v in x]


@pytest.mark.parametrize(("words", "width", "k"), [(1, 1, 1), (33, 1, 33), (70, 40, 5), (300, 3, 64)])
def test_nearest_words_and_extremes_are_the_reference(isa: str, words: int, width: int, k: int) -> None:
    """Few values in few places: many words are equally far, and lower ids come first."""
    table, levels = table_of(words, width, 1, largest=2), Levels(30, -1)
    ids = torch.arange(words).flip(0)
    where = (table.rows, table.sqnorms, ids, table.rows, table.sqnorms)
    for got, expected in zip(nearest_words(table, k, ids=ids), reference.nearest_words(*where, k), strict=True):
        assert torch.equal(got, expected)
    values, word_values = torch.arange(31, dtype=torch.int32) ** 2 - 400, torch.arange(words, dtype=torch.int32) % 11
    got = row_extremes(table, levels, values, word_values, ids=ids)
    expected = reference.row_extremes(*where, -1, True, 30, values, word_values)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 40),
    st.integers(1, 20),
    st.integers(1, 40),
    st.floats(0.1, 30),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**46 - 50),
)
def test_native_draws_are_the_reference(words, width, k, epsilon, root, fixed, step, offset) -> None:
    table, levels = table_of(words, width, words, largest=5), Levels(12, 0 if root else 5, root)
    weights = torch.from_numpy(WeightTable.exponential(epsilon, 12, words).array())
    near, ids = neighbours(table, k), torch.arange(45) * 7 % words
    bounds = (0, 0, 0)
    if fixed:  # few rounds, so that what is left over is drawn too
        most = [sorted(own_weights(table, v, levels, weights))[::-1][: near.ids.shape[1]] for v in range(words)]
        bounds = (3, max(map(sum, most)), max(own[-1] for own in most))
    how = (levels.shift, root, 12, weights, *bounds, KEY_TENSOR, step, offset)
    expected = reference.rejection_draws(ids, table.rows, table.sqnorms, near.ids, near.distances, *how)
    got = draw_words_near(
        table, near, levels, weights, ids, KEY, step, offset, fixed=FixedTime(*bounds) if fixed else None
    )
    assert torch.equal(got, expected)


def test_instruction_sets_agree(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, levels = table_of(400, 67, 2), Levels(1500)
    weights = torch.from_numpy(WeightTable.exponential(25, 1500, 400).array())
    near, ids = neighbours(table, 37), torch.arange(700) % 400
    for each in (weights, weights.long()):
        bounds = fixed_time(table, near, levels, each)
        drawn = draw_words_near(table, near, levels, each, ids, KEY, 1)
        slow = draw_words_near(table, near, levels, each, ids[:40], KEY, 1, fixed=bounds)
        monkeypatch.setattr(native_exponential, "isa", "scalar")
        assert torch.equal(drawn, draw_words_near(table, near, levels, weights, ids, KEY, 1))
        assert torch.equal(slow, draw_words_near(table, near, levels, weights, ids[:40], KEY, 1, fixed=bounds))
        monkeypatch.setattr(native_exponential, "isa", isa)


@pytest.mark.parametrize("k", [1, 4, 11, 12])
def test_proposals_have_the_weights_exactly(k: int) -> None:
    """Every number that a proposal can be is given to the reference's rule: each word is kept as often as it weighs."""
    table, levels, weights = table_of(12, 2, 3, largest=3), Levels(6), torch.tensor([9, 8, 5, 3, 2, 1, 1])
    near = neighbours(table, k)
    for word in (0, 5, 11):
        own = own_weights(table, word, levels, weights)
        listed = [own[v] for v in near.ids[word].tolist()]
        tail = listed[-1] if k < 12 else 0
        total = sum(listed) + 12 * tail
        ids = torch.tensor([word])
        seen: Counter[int] = Counter()
        for u in range(total):
            # a word of key stream whose product with the total has this high half and is not refused
            first = -(-(u * 2**64 + 2**64 % total) // total)
            assert first * total >> 64 == u
            assert first * total % 2**64 >= 2**64 % total
            seen[_one_proposal(table, near, levels, weights, ids, first)] += 1
        seen.pop(-1, None)
        assert seen == Counter(dict(enumerate(own)))


def _one_proposal(table, near, levels, weights, ids, word: int) -> int:
    """What one word of key stream is made into, or -1 where it is refused: the stream then ends."""

    class Refused(Exception):
        pass

    def stream(*_: object):
        yield word
        raise Refused

    before = reference.words
    reference.words = stream  # type: ignore[assignment]
    try:
        how = (levels.shift, levels.root, levels.last, weights, 0, 0, 0, KEY_TENSOR, 0, 0)
        return int(reference.rejection_draws(ids, table.rows, table.sqnorms, near.ids, near.distances, *how)[0])
    except (Refused, RuntimeError):
        return -1
    finally:
        reference.words = before


@pytest.mark.parametrize("fixed", [False, True])
def test_draws_have_the_distribution(fixed: bool) -> None:
    """Most of the mass beyond a short list, and a head inside it."""
    table, levels = table_of(60, 3, 5, largest=20), Levels(30)
    weights = torch.from_numpy(WeightTable.exponential(8, 30, 60).array())
    near, count = neighbours(table, 6), 20_000 if fixed else 200_000
    own = own_weights(table, 7, levels, weights)
    bounds = fixed_time(table, near, levels, weights) if fixed else None
    drawn = draw_words_near(table, near, levels, weights, torch.full((count,), 7), KEY, 3, fixed=bounds)
    assert chi_square_p(drawn.tolist(), {v: w / sum(own) for v, w in enumerate(own)}) > CUT_OFF


def test_fixed_rounds_leave_nothing_undecided() -> None:
    """(1 - p)^rounds < 2^-128 for the word that is decided least often, from exact fractions."""
    table, levels = table_of(50, 3, 6, largest=20), Levels(30)
    weights = torch.from_numpy(WeightTable.exponential(8, 30, 50).array())
    near = neighbours(table, 4)
    bounds = fixed_time(table, near, levels, weights)
    every = [own_weights(table, v, levels, weights) for v in range(50)]
    listed = [[own[v] for v in near.ids[i].tolist()] for i, own in enumerate(every)]
    assert bounds.most_listed == max(map(sum, listed))
    assert bounds.most_tail == max(x[-1] for x in listed)
    worst = Fraction(min(map(sum, every)), bounds.most_listed + 50 * bounds.most_tail)
    assert bounds.rounds * math.log1p(-float(worst)) < -128 * math.log(2)
    assert bounds.rounds < 1 + 90 / float(worst) * 1.1
    with pytest.raises(ValueError, match="fixed_time: weights must differ, got one weight; draw uniformly instead"):
        fixed_time(table, near, levels, torch.full((31,), 5))


def test_threads_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table, levels = table_of(90, 5, 7), Levels(300)
    weights = torch.from_numpy(WeightTable.exponential(9, 300, 90).array())
    near, ids = neighbours(table, 16), torch.arange(500) * 11 % 90
    whole = draw_words_near(table, near, levels, weights, ids, KEY, 0, 70)
    assert torch.equal(whole[123:301], draw_words_near(table, near, levels, weights, ids[123:301], KEY, 0, 193))
    monkeypatch.setattr(native_exponential, "_TOKENS_A_THREAD", 7)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(draw_words_near(table, near, levels, weights, ids, KEY, 0, 70), whole)
    finally:
        torch.set_num_threads(threads)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 30), st.integers(1, 6), st.floats(0.5, 20), st.integers(0, 10**6))
def test_the_exact_certificate_is_the_enumerated_one(words: int, width: int, epsilon: float, seed: int) -> None:
    """Never below the truth, at most 2^-21 above it, and never above the range bound by more than that."""
    table, levels = table_of(words, width, seed, largest=4), Levels(9, -1)
    weights = WeightTable.exponential(epsilon, 9, words)
    tensor = torch.from_numpy(weights.array())
    totals = weight_totals(table, levels, tensor, ids=torch.arange(words))
    logs = floor_logs(weights.weights).tolist(), floor_logs(totals.numpy()).tolist()
    most, least = log_extremes(table, levels, *logs)
    got = exact_epsilon(most.tolist(), least.tolist())
    every = [own_weights(table, v, levels, tensor) for v in range(words)]
    shares = [[Fraction(w, sum(own)) for w in own] for own in every]
    ratio = max(max(row[y] for row in shares) / min(row[y] for row in shares) for y in range(words))
    truth = math.log(ratio)
    assert truth - 1e-12 <= got <= truth + 2**-21 + 1e-12
    assert got <= weights.eps_range + 2**-21


TABLE, WEIGHTS, IDS = table_of(3, 2), torch.tensor([2, 1]), torch.tensor([0, 2])
NEAR = Neighbours(torch.zeros(3, 2, dtype=torch.int32), torch.zeros(3, 2, dtype=torch.int32))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: draw_words_near(TABLE, NEAR, Levels(1), torch.tensor([1, 2]), IDS, KEY, 0),
            "rejection_draws: weights must not grow with their level, got some that do; draw by streaming instead",
        ),
        (
            lambda: draw_words_near(TABLE, Neighbours(NEAR.ids[:2], NEAR.distances), Levels(1), WEIGHTS, IDS, KEY, 0),
            "rejection_draws: near_ids must be int32 of shape [3, k] with k from 1 to 3, got [2, 2] torch.int32; "
            "make the list with neighbours",
        ),
        (
            lambda: nearest_words(TABLE, 4, ids=IDS),
            "nearest_words: k must be from 1 to the 3 words, got 4; ask for fewer",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message

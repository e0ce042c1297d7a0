"""Permute-and-flip's draws: the reference, every instruction set, and the distribution of its definition."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.kernels import ByteTable, Levels, draw_flipped, native, native_exponential
from privkt.kernels import reference_exponential as streaming
from privkt.kernels import reference_rejection as reference
from privkt.testing.statistics import CUT_OFF, chi_square_p

KEY = bytes(range(32))
KEY_TENSOR = torch.tensor(list(KEY), dtype=torch.uint8)


def table_of(words: int, width: int, seed: int = 0, largest: int = 9) -> ByteTable:
    source = torch.Generator().manual_seed(seed)
    rows = torch.randint(-largest, largest + 1, (words, width), generator=source, dtype=torch.int8)
    return ByteTable(rows, rows.int().square().sum(1, dtype=torch.int32), 1.0)


def falling(last: int, bits: int, rate: float) -> torch.Tensor:
    return torch.tensor([max(1, int(2**bits * (1 - rate) ** t)) for t in range(last + 1)], dtype=torch.int32)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 30),
    st.floats(0, 0.6),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**46 - 50),
)
def test_native_draws_are_the_reference(words, width, bits, rate, step, offset) -> None:
    table, weights, ids = table_of(words, width, words), falling(30, bits, rate), torch.arange(20) * 3 % words
    arguments = (ids, table.rows, table.sqnorms, 1, True, 30, weights, KEY_TENSOR, step, offset)
    assert torch.equal(
        draw_flipped(table, Levels(30, 1), weights, ids, KEY, step, offset), reference.flip_draws(*arguments)
    )


@pytest.mark.parametrize("isa", native.module().TOKEN_ISAS.split(","))
def test_instruction_sets_batches_and_threads_agree(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More words than one stretch of coins, and more tokens than a block."""
    try:
        native.module().token_isa(isa)
    except RuntimeError:
        pytest.skip(f"this processor has no {isa}")
    table, weights, ids = table_of(1100, 4, 1, 60), falling(200, 30, 0.1), torch.arange(500) * 7 % 1100
    monkeypatch.setattr(native_exponential, "isa", "scalar")
    whole = draw_flipped(table, Levels(200), weights, ids, KEY, 2, 9)
    monkeypatch.setattr(native_exponential, "isa", isa)
    assert torch.equal(draw_flipped(table, Levels(200), weights, ids, KEY, 2, 9), whole)
    assert torch.equal(draw_flipped(table, Levels(200), weights, ids[77:99], KEY, 2, 86), whole[77:99])
    monkeypatch.setattr(native_exponential, "_PRODUCTS_A_THREAD", 50_000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(draw_flipped(table, Levels(200), weights, ids, KEY, 2, 9), whole)
    finally:
        torch.set_num_threads(threads)


def test_draws_have_the_distribution_of_the_definition() -> None:
    """All orders and all outcomes of the coins, in fractions: the first word of the order that is kept."""
    table, levels, weights = (
        table_of(6, 2, 3, largest=3),
        Levels(6),
        torch.tensor([8, 7, 5, 3, 2, 1, 1], dtype=torch.int32),
    )
    x = (table.rows.long() - table.rows[4].long()).square().sum(1).tolist()
    kept = [Fraction(int(weights[streaming.level(v, 0, True, 6)]), 8) for v in x]
    expected = dict.fromkeys(range(6), Fraction(0))
    for order in itertools.permutations(range(6)):
        left = Fraction(1, 720)
        for word in order:
            expected[word] += left * kept[word]
            left *= 1 - kept[word]
    assert sum(expected.values()) == 1
    drawn = draw_flipped(table, levels, weights, torch.full((200_000,), 4), KEY, 3)
    assert chi_square_p(drawn.tolist(), {word: float(p) for word, p in expected.items()}) > CUT_OFF


TABLE, IDS = table_of(3, 2), torch.tensor([0, 2])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("weights", [[3, 1], [1, 1], [2, 4]])
def test_weights_without_an_exact_coin_are_refused(weights: list[int]) -> None:
    message = "flip_draws: weights must be int32 and the first of them a power of two that none exceeds, got"
    with pytest.raises(ValueError, match=message):
        draw_flipped(TABLE, Levels(1), torch.tensor(weights, dtype=torch.int32), IDS, KEY, 0)
    assert draw_flipped(TABLE, Levels(1), torch.tensor([4, 1], dtype=torch.int32), IDS[:0], KEY, 0).tolist() == []

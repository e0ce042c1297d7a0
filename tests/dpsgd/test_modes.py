"""The mode of a parameter follows from shapes by the inequalities that the documentation states."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privkt.dpsgd.modes import head_use, mode_of, product_use, segments_use


def _product(positions, p, d, dtype=torch.float32):
    shapes = (torch.empty(1, positions, width, dtype=dtype, device="meta") for width in (p, d))
    return product_use("w", *shapes)


def _words(positions, d):
    ids = torch.empty(1, positions, dtype=torch.int64, device="meta")
    return segments_use("w", ids, torch.empty(1, positions, d, device="meta"))


@pytest.mark.parametrize(("dtype", "times"), [(torch.float32, 2), (torch.bfloat16, 4), (torch.float64, 2)])
def test_a_lora_pair_has_rows_from_twice_or_four_times_its_rank(dtype, times):
    rank, wide = 8, 10**9
    for shape in ((rank, wide), (wide, rank)):
        assert mode_of(shape, [_product(times * rank, *shape, dtype)]) == "rows"
        assert mode_of(shape, [_product(times * rank - 1, *shape, dtype)]) != "rows"


def test_a_full_layer_has_products_while_sequences_are_short():
    assert mode_of((64, 64), [_product(63, 64, 64)]) == "gram"
    assert mode_of((64, 64), [_product(64, 64, 64)]) == "rows"
    assert mode_of((64, 64), [_product(64, 64, 64, torch.bfloat16)]) == "tiles"
    assert mode_of((64, 64), [_product(64, 64, 64)], "kept") == "tiles"
    assert mode_of((64, 64), [_product(1, 64, 64)], "rows") == "rows"


def test_uses_of_one_weight_add_up():
    assert mode_of((64, 64), [_product(32, 64, 64)] * 2) == "rows"
    assert mode_of((64, 64), [_product(31, 64, 64)] * 2) == "gram"


def test_embeddings_have_segments_unless_they_are_tiny():
    assert mode_of((1000, 64), [_words(20, 64)]) == "segments"
    assert mode_of((2, 64), [_words(20, 64)]) == "rows"


def test_an_embedding_that_is_also_a_head_is_tied():
    uses = [_words(20, 64), _product(20, 1000, 64)]
    assert mode_of((1000, 64), uses) == "tied"
    assert mode_of((1000, 64), [*uses, _product(400, 1000, 64)]) == "rows"


def test_a_head_on_hidden_states_is_made_in_slices():
    head, empty = head_use("w", torch.empty(1, 20, 64, device="meta")), _product(0, 1000, 64)
    assert mode_of((1000, 64), [head]) == mode_of((1000, 64), [empty, head]) == "head"
    assert mode_of((1000, 64), [_words(20, 64), empty, head]) == "tied"
    assert mode_of((1000, 64), [head, _product(5, 1000, 64)]) == "rows"
    assert mode_of((1000, 64), [head], "rows") == "rows"


def test_anything_else_has_rows():
    bias = product_use("w", torch.empty(1, 1, 1), torch.empty(1, 1, 1))._replace(form="rows")
    assert mode_of((1000, 64), [_words(2, 64), bias]) == "rows"
    assert mode_of((1000,), [_words(2, 64)]) == "rows"
    assert mode_of((8, 8), []) == "unused"
    assert mode_of((8, 8), [], "rows") == "rows"
    assert mode_of((8, 8), [bias._replace(form="fallback")], "rows") == "fallback"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_a_longer_sequence_never_leaves_rows_and_the_cheaper_norm_is_taken(positions, p, d):
    mode, longer = (mode_of((p, d), [_product(t, p, d)]) for t in (positions, positions + 1))
    assert mode in ("rows", "gram")  # in float32 rows begin where tiles would
    assert not (mode == "rows" and longer != "rows")
    kept = mode_of((p, d), [_product(positions, p, d)], "kept")
    assert (kept == "gram") == (positions**2 * (p + d) / 2 < positions * p * d)

"""hypothesis strategies for token mechanisms: public tables, epsilons, ids and documents, the bad ones too."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

_ID_TYPES = (np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8)
SMALL_TABLES: tuple[list[list[float]], ...] = ([[1.0]], [[0.0, 0.0]], [[0.0], [1.0]], [[2.0], [2.0]], [[1e38], [-1e38]])
NO_EPSILONS: tuple[Any, ...] = (
    0,
    -1,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    "x",
    "",
    "1/0",
    "-1/2",
    None,
    True,
    [],
    1j,
)
_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (0,), (2, 3), (3, 0, 2), (1, 1, 1), (2, 2, 2))


@st.composite
def vector_tables(draw: st.DrawFn, max_words: int = 8, max_width: int = 4, min_words: int = 1) -> NDArray[np.float32]:
    """Public tables [V, D] float32, V from 1: duplicates, rows of zeros, huge, tiny and denormal values among them."""
    words, width = draw(st.integers(min_words, max_words)), draw(st.integers(1, max_width))
    value = st.one_of(
        st.floats(-2, 2, width=32),
        st.sampled_from((0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, -3e38)),
    )
    rows = draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=words, max_size=words))
    for place in draw(st.lists(st.integers(0, words - 1), max_size=2)):
        rows[place] = rows[0] if draw(st.booleans()) else [0.0] * width
    return np.array(rows, dtype=np.float32)


@st.composite
def clustered_tables(draw: st.DrawFn, max_words: int = 8, max_width: int = 4) -> NDArray[np.float32]:
    """Tables of few far groups of near words, as vocabularies have them; words of a group may be equal."""
    words, width, groups = draw(st.integers(2, max_words)), draw(st.integers(1, max_width)), draw(st.integers(1, 3))
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centres = source.normal(size=(groups, width)) * draw(st.sampled_from((1.0, 10.0, 1e4)))
    spread = draw(st.sampled_from((0.0, 1e-3, 0.1)))
    table = centres[source.integers(groups, size=words)] + spread * source.normal(size=(words, width))
    return np.asarray(table, dtype=np.float32)


def tables(max_words: int = 8, max_width: int = 4) -> st.SearchStrategy[NDArray[np.float32]]:
    """Any table that must be served: `vector_tables`, `clustered_tables`, one word, two words, equal words."""
    return st.one_of(
        vector_tables(max_words, max_width),
        clustered_tables(max_words, max_width),
        st.sampled_from(SMALL_TABLES).map(lambda rows: np.array(rows, dtype=np.float32)),
    )


def broken_tables() -> st.SearchStrategy[NDArray[np.float32]]:
    """Tables that must be refused: NaN or infinity somewhere, no words, no width, or another shape."""
    spoilt = st.tuples(vector_tables(), st.sampled_from((np.nan, np.inf, -np.inf)), st.integers(0, 2**16)).map(_spoil)
    return st.one_of(spoilt, st.sampled_from([(0, 3), (3, 0), (3,), (2, 2, 2)]).map(lambda s: np.zeros(s, np.float32)))


def _spoil(case: tuple[NDArray[np.float32], float, int]) -> NDArray[np.float32]:
    table, value, place = case
    table = table.copy()
    table.reshape(-1)[place % table.size] = value
    return table


def token_epsilons() -> st.SearchStrategy[float]:
    """Epsilons of one token, from next to nothing to nearly no noise."""
    return st.one_of(st.floats(1e-3, 30), st.sampled_from((0.1, 1.0, 3.0, 10.0)))


def epsilons(least: float = 1e-3, most: float = 30.0) -> st.SearchStrategy[Fraction | float | int | str]:
    """The same in every way to write them: floats, whole numbers, fractions, and text such as "1/3" and "2.5"."""
    exact = st.fractions(Fraction(least), Fraction(most))
    whole = [n for n in (1, 2, 5, 10) if least <= n <= most]
    number = st.floats(least, most, allow_subnormal=False)
    written = [exact, exact.map(str), number, number.map(repr), st.sampled_from((least, most))]
    return st.one_of(*written, st.sampled_from(whole)) if whole else st.one_of(*written)


def bad_epsilons() -> st.SearchStrategy[Any]:
    """What is no epsilon and must be refused: zero, negative, not finite, no number, not even text of one."""
    return st.one_of(st.sampled_from(NO_EPSILONS), st.floats(max_value=0.0))


@st.composite
def id_arrays(draw: st.DrawFn, size: int) -> NDArray[np.integer[Any]]:
    """Ids in [0, `size`) of any shape, empty and without dimensions too, and of any whole type that holds them."""
    shape = draw(st.sampled_from(_SHAPES))
    number = int(np.prod(shape))
    values = draw(st.lists(st.integers(0, min(size, 128) - 1), min_size=number, max_size=number))
    return np.array(values).astype(draw(st.sampled_from(_ID_TYPES))).reshape(shape)


@st.composite
def bad_id_arrays(draw: st.DrawFn, size: int) -> NDArray[Any]:
    """Arrays of which at least one entry is no id in [0, `size`): too large, negative, a float, a truth value, text."""
    good = draw(st.lists(st.integers(0, size - 1), max_size=4))
    place = draw(st.integers(0, len(good)))
    stranger = draw(st.sampled_from((-1, size, size + 731_519, -(2**63), 2**63 - 1)))
    mixed = np.array([*good[:place], stranger, *good[place:]], dtype=np.int64)
    others = [np.array([0.0]), np.array([np.nan]), np.array([True]), np.array(["0"]), np.array([None])]
    others.append(np.array([2**64 - 1], dtype=np.uint64))
    return draw(st.one_of(st.just(mixed), st.sampled_from(others)))


def documents(size: int, max_length: int = 12) -> st.SearchStrategy[list[list[int]]]:
    """Documents as lists of ids in [0, `size`): none, empty ones, equal ones, and one word many times."""
    word = st.integers(0, size - 1)
    document = st.one_of(st.lists(word, max_size=max_length), st.tuples(word).map(lambda x: list(x) * max_length))
    return st.lists(document, max_size=4).flatmap(lambda them: st.just(them) | st.just([*them, *them]))

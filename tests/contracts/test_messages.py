"""Texts, Rows and private data: exact small cases and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.contracts import PrivateData, Rows, Texts, public_digest
from privkt.privacy import PrivateAccessLocked, private_access_locked
from privkt.testing.strategies import text_messages, texts


@given(text_messages())
def test_iterating_gives_the_rows(message):
    assert [row.text for row in message] == list(message.text)
    assert len(list(message)) == len(message)
    assert all(row.label is None for row in message) or message.label is not None


def test_columns_must_be_as_long_as_text():
    with pytest.raises(ValueError, match=r"^Texts: column 'label' must have 2 rows like text, got 1$"):
        Texts(("a", "b"), ("x",))
    with pytest.raises(ValueError, match="column 'note' must have 1 rows like text, got 0"):
        Texts(("a",), None, {"note": ()})


def test_texts_of_pairs():
    assert Texts.of([("a", "x"), ("b", "y")]) == Texts(("a", "b"), ("x", "y"))


@given(st.lists(st.tuples(texts(), texts(), texts()), min_size=1, max_size=3))
def test_canonical_bytes_tell_rows_apart(cells):
    rows = Rows(tuple(c[0] for c in cells), tuple(c[1] for c in cells), columns={"note": tuple(c[2] for c in cells)})
    found = list(rows.canonical())
    assert all((found[i] == found[j]) == (cells[i] == cells[j]) for i in range(len(cells)) for j in range(len(cells)))


def test_canonical_bytes_do_not_depend_on_where_a_cell_ends():
    assert list(Rows(("ab",), ("c",)).canonical()) != list(Rows(("a",), ("bc",)).canonical())


def test_private_rows_are_out_of_reach_while_a_release_is_post_processed():
    data = PrivateData("reviews", 1, None, lambda: Rows(("canary-3092",)))
    assert data.load().text == ("canary-3092",)
    with private_access_locked(), pytest.raises(PrivateAccessLocked, match="rows of the data set 'reviews'") as caught:
        data.load()
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(data)


def test_the_public_digest_tells_parts_apart():
    assert public_digest("ab", "c") != public_digest("a", "bc")
    assert public_digest("a") != public_digest("a", "")

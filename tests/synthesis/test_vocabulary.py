"""Every text maps into the vocabulary, the same way every time, and comes back without what pads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tokens import WORDS, vocabulary

from privkt.privacy import RefusedInput
from privkt.synthesis.tokenizer_vocabulary import TokenizerVocabulary
from privkt.synthesis.word_vocabulary import WordVocabulary

ANY_TEXT = st.text(st.characters(), max_size=60)  # every code point, halves of surrogate pairs too


@pytest.fixture(scope="module")
def tokens(tiny_bert):
    return TokenizerVocabulary.from_pretrained(tiny_bert)


@given(ANY_TEXT)
def test_any_text_maps_into_words(text):
    words = vocabulary()
    rows = words.encode(text)
    assert rows.dtype == np.int64
    assert ((rows >= 0) & (rows < words.size)).all()
    assert (rows == words.encode(text)).all()
    assert isinstance(words.decode(rows), str)


@settings(max_examples=60)
@given(text=ANY_TEXT)
def test_any_text_maps_into_tokens(tokens, text):
    rows = tokens.encode(text)
    assert ((rows >= 0) & (rows < tokens.size)).all()
    assert (rows == tokens.encode(text)).all()
    assert tokens.padding not in rows
    tokens.decode(rows).encode()  # whole characters only


@settings(max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_bytes_come_back(tokens, text):
    """The tiny model's tokens are bytes: nothing is lost on the way there and back."""
    assert tokens.decode(tokens.encode(text)) == text


def test_special_tokens_have_no_row_and_their_spelling_is_text(tokens):
    rows = tokens.encode("a[SEP]b[PAD][CLS]")
    assert tokens.decode(rows) == "a[SEP]b[PAD][CLS]"
    assert len(rows) == len("a[SEP]b[PAD][CLS]")
    assert tokens.size == 256 + 2


@pytest.mark.parametrize("text", ["12", "1 2", "the cold visit", "THE", "don't", "Anna", "anna", "", "   ", "zebra"])
def test_words_are_found_by_the_stated_rule(text):
    words = vocabulary()
    expected = {
        "12": ["1", "2"],
        "1 2": ["1", "2"],
        "the cold visit": ["the", "cold", "visit"],
        "THE": ["the"],
        "don't": ["don't"],
        "Anna": ["Anna"],
        "anna": ["<unk>"],
        "": [],
        "   ": [],
        "zebra": ["<unk>"],
    }[text]
    assert words.decode(words.encode(text)).split() == expected


def test_padding_says_nothing_and_unknown_says_so():
    words = vocabulary()
    assert words.decode([2, words.padding, words.unknown, words.padding]) == "visit <unk>"
    with pytest.raises(RefusedInput, match=r"rows must lie in \[0, 17\)"):
        words.decode([words.size])


def test_extra_rows_point_to_the_mean_and_away_from_it():
    words = vocabulary()
    mean, away = words.vectors[words.unknown], words.vectors[words.padding]
    assert (mean == -away).all()
    np.testing.assert_allclose(mean / np.linalg.norm(mean), _direction(words.vectors[:-2]), atol=1e-6)
    centred = WordVocabulary(("x", "y"), np.asarray([[1.0, 2.0], [-1.0, -2.0]], dtype=np.float32))
    assert np.linalg.norm(centred.vectors[-1]) == pytest.approx(5**0.5)


def _direction(rows):
    mean = rows.mean(0)
    return mean / np.linalg.norm(mean)


def test_identity_follows_words_and_vectors(tokens):
    assert vocabulary().identity == vocabulary().identity
    other = vocabulary()
    other.vectors[0, 0] += 1
    assert other.identity != vocabulary().identity
    assert vocabulary(tuple(reversed(WORDS))).identity != vocabulary().identity
    before = tokens.identity
    tokens.encode("used")
    tokens._identity = None
    assert tokens.identity == before


@pytest.mark.parametrize(
    ("words", "vectors", "message"),
    [
        (("a", "a"), [[1.0], [2.0]], "word 1 comes twice"),
        (("a", " b"), [[1.0], [2.0]], "without spaces around it"),
        (("a",), [[1.0], [2.0]], "2 vectors for 1 words"),
        (("a", "b"), [[1.0], [float("nan")]], "that of row 1 is not"),
        (("a", "b"), [1.0, 2.0], r"got shape \(2,\)"),
    ],
)
def test_bad_words_and_vectors_are_refused(words, vectors, message):
    with pytest.raises(RefusedInput, match=message):
        WordVocabulary(words, np.asarray(vectors, dtype=np.float32))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("the 1 2\ncold 3\n", "line 2 must be a word and 2 numbers"),
        ("the 1 2\ncold 3 x\n", "line 2 must be a word and 2 numbers"),
        ("\n", "at least one word"),
        ("the 1 2\nthe 3 4\n", "word 1 comes twice"),
    ],
)
def test_bad_vector_files_are_refused(tmp_path, lines, message):
    file = tmp_path / "vectors.txt"
    file.write_text(lines)
    with pytest.raises(RefusedInput, match=message):
        WordVocabulary.from_file(file)


def test_vector_files_are_read_with_and_without_counts(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2\ncold 3 4\n. . 5 6\n".replace(". . ", ".. "), encoding="utf-8")
    plain = WordVocabulary.from_file(file)
    assert plain.vectors[:-2].tolist() == [[1, 2], [3, 4], [5, 6]]
    file.write_text("3 2\nthe 1 2\ncold 3 4\n.. 5 6\n", encoding="utf-8")
    assert WordVocabulary.from_file(file).identity == plain.identity
    file.write_bytes(b"the 1 2\n\xff 3 4\n")
    with pytest.raises(RefusedInput, match="is not UTF-8"):
        WordVocabulary.from_file(file)
    with pytest.raises(RefusedInput, match="no file"):
        WordVocabulary.from_file(tmp_path / "none.txt")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match="must be a model folder"):
        TokenizerVocabulary.from_pretrained(tmp_path)


def test_too_few_embeddings_are_refused(tokens):
    with pytest.raises(RefusedInput, match="a row for each id"):
        TokenizerVocabulary(tokens._tokenizer, np.ones((5, 3), dtype=np.float32))

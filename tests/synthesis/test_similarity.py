"""MinHash, TF-IDF and ROUGE-L held against their definitions."""

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.synthesis.filters import shingles
from privkt.synthesis.similarity import NearDuplicates, TfidfNearness, common_subsequence, rouge_l

words = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12)


def jaccard(one, other):
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def longest(first, second):
    """The textbook table."""
    rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@given(words, words)
def test_the_common_subsequence_is_that_of_the_table(first, second):
    assert common_subsequence(first, second) == longest(first, second)


@given(words, words)
def test_rouge_is_symmetric_and_1_for_equal_words(first, second):
    one, other = " ".join(first), " ".join(second)
    assert rouge_l(one, other) == rouge_l(other, one)
    assert 0 <= rouge_l(one, other) <= 1
    assert rouge_l(one, one.upper() + "!") == 1


def test_rouge_by_hand():
    assert rouge_l("the cat sat here", "the dog sat") == pytest.approx(2 * 2 / 7)
    assert rouge_l("", "a") == 0
    assert rouge_l("...", "") == 1


def test_minhash_estimates_the_jaccard_similarity():
    """256 entries of standard error at most 0.032: five of them are 0.16, passed by chance less than once in 10^6."""
    draw = random.Random(5)
    for shared in (0, 10, 25, 40, 50):
        common = [f"w{draw.randrange(10**9)}" for _ in range(shared)]
        one = " ".join(common + [f"x{draw.randrange(10**9)}" for _ in range(50 - shared)])
        other = " ".join(common + [f"y{draw.randrange(10**9)}" for _ in range(50 - shared)])
        index = NearDuplicates(0.5)
        index.see(one)
        true = jaccard(one, other)
        assert abs(index.closest(other) - true) <= 5 * math.sqrt(max(true * (1 - true), 1e-9) / 256) + 1e-9


def test_a_near_duplicate_is_not_new_and_is_not_remembered():
    index = NearDuplicates(0.7)
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert index.is_new(text)
    assert not index.is_new(text.upper() + " fifteen")
    assert index.is_new("quite another sentence about something else altogether")
    assert index.is_new("...")
    assert index.is_new("...")


def test_more_texts_than_the_first_room_holds():
    index = NearDuplicates(0.7)
    texts = [f"text {i} with number {i * 7} and word w{i * 13} at the end of line {i * 17}" for i in range(150)]
    for text in texts:
        index.see(text)
    assert all(index.closest(text) == 1 for text in texts)


def test_signatures_are_the_same_in_every_process():
    program = (
        "from privkt.synthesis.similarity import NearDuplicates as N; i = N(0.5); i.see('a b c d e f g h');"
        "print(i.closest('a b c d e f x y'))"
    )
    found = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    }
    assert len(found) == 1


def test_tfidf_by_hand():
    near = TfidfNearness(["cough and cold", "rash on the arm"])
    same, other, strange = near.closest(["Cold, and cough!", "rash", "quite unknown"])
    assert same == pytest.approx(1)
    assert 0 < other < 1
    assert strange == 0
    assert TfidfNearness([]).closest(["a"]) == [0]
    assert near.closest([]) == []

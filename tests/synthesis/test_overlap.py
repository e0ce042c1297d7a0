import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.synthesis.overlap import longest_common, overlap_report

PRIVATE = ["the soup was cold and the waiter Ada Quill shrugged at table nine", "we loved every bite of the lemon cake"]


def test_counts():
    found = overlap_report(
        ["today the soup was cold and the waiter smiled at us", PRIVATE[1].upper() + "!", "nothing in common here"],
        PRIVATE,
        canaries=["Ada Quill", "lemon cake", "quill", "nobody planted this"],
    )
    assert found == {
        "texts": 3.0, "longest_common_words": 8.0, "share_with_8_common_words": pytest.approx(1 / 3),
        "exact_copies": 1.0, "near_copies": 1.0, "canaries": 4.0, "canaries_repeated": 1.0,
        "canaries_in_the_data": 3.0,
    }  # fmt: skip


def test_no_text_gets_into_the_report():
    assert all(isinstance(value, float) for value in overlap_report(PRIVATE, PRIVATE, ["Ada Quill"]).values())


@pytest.mark.parametrize(("made", "private"), [([], PRIVATE), (PRIVATE, []), ([], [])])
def test_nothing_gives_zeros(made, private):
    found = overlap_report(made, private)
    assert found.pop("texts") == len(made)
    assert set(found.values()) == {0.0}


@given(*[st.lists(st.lists(st.sampled_from("abc"), max_size=7), max_size=4)] * 2)
def test_longest_common_run_is_that_of_every_pair(made, private):
    def common(a, b):
        runs = [tuple(a[i:j]) for i in range(len(a)) for j in range(i + 1, len(a) + 1)]
        other = {tuple(b[i:j]) for i in range(len(b)) for j in range(i + 1, len(b) + 1)}
        return max((len(r) for r in runs if r in other), default=0)

    assert longest_common(made, private) == max((common(a, b) for a in made for b in private), default=0)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.contracts import LabelledText
from privkt.synthesis.filters import Validity, distinct, keep_valid, strip_decoration

TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("  - A text.  ", "A text."),
        ('"A text."', "A text."),
        ("**A text.**", "A text."),
        ("1. A text.", "A text."),
        ("A text.<|endoftext|><|im_end|>", "A text."),
        ("### A text. ###", "A text."),
        ("A text.\n---", "A text."),
        ('"A" and "B"', '"A" and "B"'),
        ("“A text.”", "A text."),
        ("2 eggs and 10 cups", "2 eggs and 10 cups"),
        ("---", ""),
        ("", ""),
    ],
)
def test_decoration_comes_off(text, stripped):
    assert strip_decoration(text) == stripped


@given(st.text(max_size=40))
def test_stripping_twice_changes_nothing(text):
    once = strip_decoration(text)
    assert strip_decoration(once) == once


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (TEN, None),
        (TEN.removesuffix(" ten"), "too few words"),
        ("one - two . three , four ! five six seven eight", "too few words"),
        ("", "empty"),
        ("12 34 !!", "no letters"),
        ("这家餐厅的服务非常好菜也很新鲜我们都很满意下次再来", None),
        ("这家餐厅很好", "too few characters"),
        ("ร้านอาหารนี้บริการดีมากอาหารอร่อยมาก", None),
    ],
)
def test_length_rules(text, fault):
    assert Validity().fault(text) == fault


def test_reasons_are_counted_and_order_kept():
    rows = [LabelledText(t, "a") for t in (TEN, "short", TEN.upper(), f"- {TEN} eleven", "")]
    kept, report = keep_valid(rows, Validity())
    assert [row.text for row in kept] == [TEN, f"{TEN} eleven"]
    assert report.to_json() == {
        "came": 5, "kept": 2, "dropped": {"empty": 1, "exact duplicate": 1, "too few words": 1},
    }  # fmt: skip


def test_near_duplicates_go_when_asked():
    rows = [LabelledText(TEN, "a"), LabelledText(f"{TEN} eleven", "a"), LabelledText(TEN[::-1], "a")]
    kept, report = keep_valid(rows, Validity(), near_duplicates=0.8)
    assert [row.text for row in kept] == [TEN, TEN[::-1]]
    assert report.dropped == {"near duplicate": 1}


@given(st.lists(st.text("ab ", min_size=1, max_size=12), max_size=12), st.floats(0.1, 1.0))
def test_distinct_texts_stay_so(texts, similarity):
    kept = distinct(texts, similarity)
    assert kept == sorted(set(kept))
    assert distinct([texts[i] for i in kept], similarity) == list(range(len(kept)))

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.contracts import LabelledText
from privkt.synthesis.labels import match_label
from privkt.synthesis.parsing import is_delimiter, labelled_texts, list_items
from privkt.synthesis.templates import TemplateConfig, make_template

NAMES = {"0": "world", "1": "sports", "2": "business", "3": "science and technology"}
AGNEWS = make_template(TemplateConfig(name="agnews"), tuple(NAMES))
YELP = make_template(TemplateConfig(name="yelp"), ("1", "2", "3", "4", "5"))
CODE = "Product type: AGnews | Text Category: "


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("world.\n-", "0"), (" **World** ", "0"), ("Sports!", "1"), ("'business'", "2"), ("science & technology", "3"),
        ("Text category: sports", "1"), ("SCIENCE AND TECHNOLOGY.", "3"), ("It is about world affairs", "0"),
        ("world, sports, business", None), ("", None), ("weather", None), ("underworld", None), ("2", "2"),
    ],
)  # fmt: skip
def test_label_names_are_matched(answer, label):
    assert match_label(answer, NAMES) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [("4/5", "4"), ("4 out of 5.", "4"), ("5 stars", "5"), ("9/10", None), ("between 3 and 4", None), ("45", None)],
)
def test_scores_are_matched(answer, label):
    assert match_label(answer, {str(i): str(i) for i in range(1, 6)}) == label


@given(st.sampled_from(sorted(NAMES)), st.text("*_-.:! \n\"'#|", max_size=6), st.text("*_-.:! \n\"'#|", max_size=6))
def test_decoration_never_changes_a_label(label, before, after):
    assert match_label(before + NAMES[label].upper() + after, NAMES) == label


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        (f"{CODE}world\nRain fell for days.", [("Rain fell for days.", "0")]),
        (f"{CODE}world.\n-\nRain fell for days.", [("Rain fell for days.", "0")]),
        (f"Sure! Here you are:\n\n1. {CODE}sports\nText: They won.", [("They won.", "1")]),
        (f"{CODE}sports They won.", [("They won.", "1")]),
        (f"---\n{CODE}sports\n\nThey won.\n---\n{CODE}business\nUp.\n---", [("They won.", "1"), ("Up.", "2")]),
        (f"```\n{CODE}sports\nThey won.\n```", [("They won.", "1")]),
        (f'{CODE}sports\n"They won."<|im_end|>', [("They won.", "1")]),
        (f"{CODE}sports\nThey\nwon.\n\nHope this helps!", [("They won.", "1")]),
    ],
)  # fmt: skip
def test_labelled_layouts_are_read(answer, rows):
    parsed, report = labelled_texts(answer, AGNEWS)
    assert parsed == [LabelledText(*row) for row in rows]
    assert not report.unparsed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (f"{CODE}weather\nRain.", "undeclared label"),
        (f"{CODE}sports\n---", "code without text"),
        ("I cannot help with that.", "no control code"),
        ("", "no control code"),
    ],
)
def test_what_is_not_read_is_counted(answer, reason):
    parsed, report = labelled_texts(answer, AGNEWS)
    assert parsed == []
    assert report.unparsed == {reason: 1}


@given(
    st.sampled_from(["---", "===", "###", "```", "***", "<sep>", "[SEP]", "<|endoftext|>", "</s>"]),
    st.lists(st.sampled_from("12345"), min_size=1, max_size=4),
)
def test_an_echoed_delimiter_loses_no_review(delimiter, labels):
    assert is_delimiter(delimiter)
    rows = [LabelledText(f"Review number {i} of the place.", label) for i, label in enumerate(labels)]
    answer = delimiter + "\n" + f"\n{delimiter}\n".join(YELP.render(*row) for row in rows) + "\n" + delimiter
    parsed, report = labelled_texts(answer, YELP)
    assert parsed == rows
    assert not report.unparsed


@pytest.mark.parametrize(
    ("answer", "items"),
    [
        ("1. one fish\n2. two fish", ("one fish", "two fish")),
        ("Here is a list:\n- one fish\n* two fish\n• red fish", ("one fish", "two fish", "red fish")),
        ("1) one\n   fish\n\n2) two fish\n---", ("one fish", "two fish")),
        ("[1] one fish\n(2) two fish\n**3.** red fish", ("one fish", "two fish", "red fish")),
        ('1. "one fish"\n2. **two fish**', ("one fish", "two fish")),
        ("no list at all", ()),
        ("", ()),
        ("1. ", ()),
    ],
)
def test_lists_are_read(answer, items):
    assert list_items(answer) == items


@given(st.lists(st.from_regex(r"[a-z]{2,9}( [a-z]{2,9}){1,5}", fullmatch=True), min_size=1, max_size=9))
def test_a_numbered_list_is_read_back(items):
    answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items, start=1))
    assert list_items(answer) == tuple(items)


def test_reports_add_up():
    _, one = labelled_texts(f"{CODE}sports\nThey won.", AGNEWS)
    _, other = labelled_texts("nothing", AGNEWS)
    assert (one + other).to_json() == {"answers": 2, "rows": 1, "unparsed": {"no control code": 1}}

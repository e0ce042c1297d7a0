"""What a word is, in scripts with spaces and without: copies, labels and lengths are told in words."""

import re

import pytest
from privkt_knowledgesg.scoring import label_in

from privkt.synthesis.labels import match_label
from privkt.synthesis.overlap import overlap_report
from privkt.synthesis.similarity import NearDuplicates, TfidfNearness, rouge_l
from privkt.synthesis.words import count_words, whole_word, words

PRIVATE = "我叫王小明，住在北京市海淀区，我咳嗽三天了"
NEARLY = "我叫王小明，住在北京市海淀区，我咳嗽两天了"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("My COUGH, it's bad.", ["my", "cough", "it", "s", "bad"]),
        ("我咳嗽。", ["我", "咳", "嗽"]),
        ("セキ・が出る", ["セ", "キ", "が", "出", "る"]),
        ("ฉันไอ", list("ฉันไอ")),
        ("약을 먹었다", ["약을", "먹었다"]),
        ("看GPT4模型", ["看", "gpt4", "模", "型"]),
        ("?!", []),
        ("ៗ゛", ["ៗ"]),
    ],
)
def test_words(text, found):
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("One two - three.", 4), ("我咳嗽，三天了。", 6), ("看 GPT4模型", 4), ("。", 1), ("", 0), ("약을 먹었다", 2)],
)
def test_lengths_are_counted_between_spaces_and_by_letter_where_there_are_none(text, found):
    assert count_words(text) == found


def test_a_copy_with_a_name_in_a_script_without_spaces_is_found():
    found = overlap_report([NEARLY], [PRIVATE], canaries=["王小明", "李小龙"])
    assert found["longest_common_words"] == 16
    assert (found["share_with_8_common_words"], found["near_copies"], found["exact_copies"]) == (1, 1, 0)
    assert (found["canaries_in_the_data"], found["canaries_repeated"]) == (1, 1)


def test_likeness_is_told_in_scripts_without_spaces():
    seen = NearDuplicates(0.7)
    assert seen.is_new(PRIVATE)
    assert seen.closest(NEARLY) > 0.6
    assert seen.closest("今天天气很好，我们去公园散步吧，好不好") < 0.1
    near = TfidfNearness([PRIVATE])
    assert near.closest([NEARLY])[0] > 0.8 > 0.3 > near.closest(["今天天气很好"])[0]
    assert rouge_l(NEARLY, PRIVATE) > 0.9


@pytest.mark.parametrize(
    ("answer", "label"),
    [("这条新闻是正面的。", "pos"), ("情感：负面", "neg"), ("正面或负面", None), ("评分5星", "5"), ("15星", None)],
)
def test_labels_are_matched_in_scripts_without_spaces(answer, label):
    assert match_label(answer, {"pos": "正面", "neg": "负面", "5": "5"}) == label


@pytest.mark.parametrize(
    ("answer", "names", "label"),
    [
        ("满分10分，我给5分", {"0": "0分", "5": "5分"}, "5"),
        ("10分", {"0": "0分"}, None),
        ("15星", {"5": "5星"}, None),
        ("DATA股", {"a": "A股"}, None),
        ("2023年5月的新闻，评分4", {"4": "4", "5": "5"}, "4"),
        ("110分", {"10": "10分"}, None),
        ("class 10", {"1": "class 1"}, None),
    ],
)
def test_names_of_mixed_letters_end_where_their_own_script_would_go_on(answer, names, label):
    assert match_label(answer, names) == label
    assert label_in(answer, names) == label


def test_a_whole_word_of_one_letter_is_no_part_of_another():
    assert re.search(whole_word("好"), "好。")
    assert not re.search(whole_word("好"), "好像")
    assert not re.search(whole_word("no"), "nose")

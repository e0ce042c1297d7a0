"""Questions: read, taken apart, put together, and what a rationale says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_fedcot.config import LengthConfig, TaskConfig
from privkt_fedcot.tasks import Part, Question, Task, said_label

from privkt.contracts import Rows
from privkt.privacy import RefusedInput

CHOICE = Task(TaskConfig(), ("A", "B", "C"))
YES_NO = Task(TaskConfig(kind="yes-no", context="passage"), ("no", "yes"))
FREE = Task(TaskConfig(kind="free-text"), ("red", "green", "dark red"))
ANIMALS = Question("which animal barks", ("a cat", "A dog", "bee"))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def listed(*cells):
    return Rows(("q",) * len(cells), ("A",) * len(cells), (), {"choices": cells})


def test_every_row_has_the_same_parts_whatever_it_holds():
    lengths = LengthConfig(question=7, choice=2, context=9)
    assert CHOICE.parts(lengths) == (Part("question", 7), *[Part("choice", 2)] * 3)
    assert YES_NO.parts(lengths) == (Part("context", 9), Part("question", 7))
    assert CHOICE.split(Question("q", ("x", "y"))) == ["q", "x", "y", ""]
    assert YES_NO.split(Question("q", context="c")) == ["c", "q"]


@given(texts, st.lists(texts, min_size=3, max_size=3))
def test_joining_undoes_splitting(text, choices):
    question = Question(text, tuple(choices))
    assert CHOICE.joined(CHOICE.split(question)) == question
    passage = Question(text, context=choices[0])
    assert YES_NO.joined(YES_NO.split(passage)) == passage


def test_questions_are_read_with_their_choices_and_passages():
    assert CHOICE.read(listed('["x", "y"]')) == (Question("q", ("x", "y")),)
    found = YES_NO.read(Rows(("q",), ("no",), (), {"passage": ("p",)}))
    assert found == (Question("q", context="p"),)
    assert found[0].written(("no", "yes")) == "Passage: p\nQuestion: q"
    assert ANIMALS.written(CHOICE.labels) == "Question: which animal barks\nA. a cat\nB. A dog\nC. bee"


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("canary", "must hold a JSON list of texts"),
        ('{"a": "canary"}', "must hold a JSON list of texts"),
        ('["canary", 3]', "must hold a JSON list of texts"),
        ('["canary", " "]', "must hold a JSON list of texts"),
        ('["canary"]', "must have 2 to 3 choices"),
        (json.dumps(["canary"] * 4), "must have 2 to 3 choices"),
    ],
)
def test_choices_of_another_form_are_refused_without_their_text(cell, rule):
    with pytest.raises(RefusedInput, match=rf"row 2.*{rule}") as refused:
        CHOICE.read(listed('["x", "y"]', cell))
    assert "canary" not in str(refused.value)


def test_a_label_without_its_choice_is_refused():
    with pytest.raises(RefusedInput, match="row 1: the label names a choice"):
        CHOICE.need_answers([Question("q", ("x", "y"))], ["C"])
    CHOICE.need_answers([Question("q", ("x", "y"))], ["B"])


def test_columns_and_labels_must_be_declared():
    with pytest.raises(RefusedInput, match="must have the column 'choices'"):
        CHOICE.read(Rows(("q",), ("A",)))
    with pytest.raises(RefusedInput, match=r"data\.labels must list the answers"):
        Task(TaskConfig(), None)
    with pytest.raises(RefusedInput, match="exactly two"):
        Task(TaskConfig(kind="yes-no"), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("rationale", "label"),
    [
        ("It barks. So the answer is B. A dog", "B"),
        ("So the answer is (C)", "C"),
        ("The answer is A", "A"),
        ("The answer is a dog.", "B"),
        ("The answer is A dog", "B"),
        ("So the answer is A. a cat", "A"),
        ("The answer is a cat or a dog", None),
        ("The answer is A cat. No: the answer is B.", "B"),
        ("Dogs bark, bees hum.", None),
        ("It is a bee", "C"),
        ("It has been a beech", None),
        ("The answer is D", None),
        ("", None),
    ],
)
def test_what_a_rationale_says(rationale, label):
    assert said_label(CHOICE, ANIMALS, rationale) == label


def test_what_a_rationale_says_without_choices():
    assert said_label(YES_NO, Question("q", context="p"), "Because. So the answer is no") == "no"
    assert said_label(YES_NO, Question("q", context="p"), "Nobody knows. The answer is: Yes!") == "yes"
    assert said_label(FREE, Question("q"), "Leaves are green") == "green"
    assert said_label(FREE, Question("q"), "The answer is dark red") == "dark red"
    assert said_label(FREE, Question("q"), "Leaves are green or red") is None


def test_answers_are_what_the_small_model_says():
    assert CHOICE.answer(ANIMALS, "B") == "A dog"
    assert CHOICE.named(ANIMALS, "B") == "B. A dog"
    assert YES_NO.answer(Question("q"), "yes") == YES_NO.named(Question("q"), "yes") == "yes"

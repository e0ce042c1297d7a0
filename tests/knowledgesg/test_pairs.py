"""Templates, and private rows as pairs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.pairs import FieldsConfig, Pair, PairTemplateConfig, make_pair_template, names_of, read_pairs
from pydantic import ValidationError

from privkt.contracts import Rows
from privkt.privacy import RefusedInput

CONFIGS = [
    PairTemplateConfig(),
    PairTemplateConfig(task="What is the mood?"),
    PairTemplateConfig(name="chatdoctor"),
    PairTemplateConfig(name="chat"),
    PairTemplateConfig(name="chat", task="Be kind."),
    PairTemplateConfig(name="custom", layout="Q: {question}\nA: {response}"),
    PairTemplateConfig(name="custom", layout="{question} => {response}"),
]
plain = st.text("abcdefgh ,.?", min_size=1, max_size=40).map(str.strip).filter(bool)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name} {bool(c.task)}")
@given(pair=st.builds(Pair, plain, plain))
def test_a_pair_is_read_back_whatever_follows_it(config, pair):
    template = make_pair_template(config)
    written = template.render(pair).removeprefix(template.opening)
    assert template.read(written) == pair
    if template.question_mark:
        assert template.read(f"{written}\n\n{template.question_mark}\nanother question") == pair
    assert template.read(f"{written}\n{template.response_mark}\nagain").question == pair.question
    assert template.is_clean(pair.question)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name} {bool(c.task)}")
def test_an_instruction_ends_where_the_writer_invents_a_heading(config):
    template = make_pair_template(config)
    written = f"What hurts?\n\n### Output:\nMany things.{template.middle}The knee.\n### Why\nIt bends."
    found = template.read(written)
    if template.response_mark.startswith("###"):
        assert found == Pair("What hurts?", "The knee.\n### Why\nIt bends.")  # a response may have headings
        with_input = template.read(
            f"What hurts?\n\n### Input:\nMy leg.\n### Explanation: none{template.middle}The knee."
        )
        assert with_input.question == ("What hurts?" if template.task else "What hurts?\n\n### Input:\nMy leg.")
    else:
        assert found.question == "What hurts?\n\n### Output:\nMany things."


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name} {bool(c.task)}")
def test_the_loss_is_on_responses_or_on_everything_after_the_header(config):
    template = make_pair_template(config)
    pair = Pair("What hurts?", "The knee.")
    answer, both = template.example(pair, "response"), template.example(pair, "pair")
    assert answer.completion == "The knee."
    assert answer.prompt + answer.completion == both.prompt + both.completion == template.render(pair)
    assert both.prompt == template.opening
    assert both.completion.startswith("What hurts?")


def test_the_bare_header_and_shown_pairs():
    template = make_pair_template(PairTemplateConfig(preamble=""))
    assert template.writing_prompt() == "### Instruction:\n"
    shown = template.writing_prompt([Pair("One?"), Pair("Two?", "Yes.")])
    assert shown == ("### Instruction:\nOne?\n\n### Instruction:\nTwo?\n\n### Response:\nYes.\n\n### Instruction:\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "custom"}, "must hold {question} once"),
        ({"name": "custom", "layout": "{question}{question}: {response}"}, "must hold {question} once"),
        ({"name": "custom", "layout": "{response} was {question}"}, "end with {response}"),
        ({"name": "custom", "layout": "{question} {response}"}, "words or marks between"),
        ({"name": "alpaca", "layout": "{question}: {response}"}, "belongs to a custom template"),
        ({"name": "custom", "layout": "{question}: {response}", "task": "Say"}, r"template\.task: .* has no \{task\}"),
        ({"name": "custom", "layout": "{question}: {response}", "preamble": "A"}, r"template\.preamble: .* has no"),
    ],
)
def test_layouts_that_cannot_be_read_back_are_refused(settings, said):
    with pytest.raises(RefusedInput, match=said):
        make_pair_template(PairTemplateConfig(**settings))


def test_a_custom_layout_says_where_task_and_preamble_stand_and_they_may_have_braces():
    layout = "{preamble}: {task}\nQ: {question}\nA: {response}"
    made = make_pair_template(
        PairTemplateConfig(
            name="custom", layout=layout, preamble="Of {task}", task="Use {question} and {response} well"
        )
    )
    assert made.render(Pair("Why?", "So.")) == f"Of {made.task}: {made.task}\nQ: Why?\nA: So."


def test_keys_that_nothing_would_read_are_refused(block):
    for changes, said in (
        ({"fields": {"messages": True, "instruction": "task"}}, "neither `instruction` nor `response` is read"),
        ({"fields": {"messages": True, "response": "answer"}}, "neither `instruction` nor `response` is read"),
        ({"label_names": {"0": "bad"}}, "label_names stand for labels"),
        ({"student": {"schedule": "linaer"}}, "schedule"),
        ({"tuning": {"schedule": "linaer"}}, "schedule"),
    ):
        with pytest.raises(ValidationError, match=said):
            KnowledgeSGConfig.model_validate(block(**changes))


def test_rows_become_pairs_of_every_kind():
    rows = Rows(("I cough", ""), ("0", "1"), ("a", "b"), {"response": ("Rest", " Wait "), "instruction": ("Say", "Do")})
    assert read_pairs(rows, FieldsConfig(), {}) == [Pair("I cough", "Rest"), Pair("", "Wait")]
    assert read_pairs(rows, FieldsConfig(response="label"), {"0": "bad"})[0] == Pair("I cough", "bad")
    own = read_pairs(rows, FieldsConfig(instruction="instruction"), {})
    assert own == [Pair("Say\n\n### Input:\nI cough", "Rest"), Pair("Do", "Wait")]
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    longer = [*talk, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "So long"}]
    texts = Rows(tuple(map(json.dumps, (talk, longer))))
    assert read_pairs(texts, FieldsConfig(messages=True), {}) == [
        Pair("Hi", "Hello"),
        Pair("User: Hi\n\nAssistant: Hello\n\nUser: Bye", "So long"),
    ]


@pytest.mark.parametrize(
    ("rows", "fields", "said"),
    [
        (Rows(("secret",)), FieldsConfig(), "a column 'response'"),
        (Rows(("secret",)), FieldsConfig(response="label"), "needs a column of labels"),
        (Rows(("secret",), columns={"response": ("x",)}), FieldsConfig(instruction="task"), "a column 'task'"),
        (Rows(("secret",)), FieldsConfig(messages=True), "row 1 must be a JSON list"),
        (Rows(('[{"role": "user", "content": "secret"}]',)), FieldsConfig(messages=True), "row 1 must end with"),
    ],
)
def test_rows_without_what_they_need_are_refused_without_a_word_of_them(rows, fields, said):
    with pytest.raises(RefusedInput, match=said) as refused:
        read_pairs(rows, fields, {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "words", "said"),
    [
        (["a", "b"], {"c": "x"}, "among the 2 declared ones, got 'c'"),
        (["a", "b"], {"a": "+", "b": "-"}, "must have a letter or digit, got '\\+'"),
        (["a", "b"], {"a": "Yes", "b": "yes."}, "got 'yes.' for 'a' and 'b'"),
        (["A", "a"], {}, "must differ in more than case"),
    ],
)
def test_names_of_labels_must_be_told_apart_in_answers(labels, words, said):
    with pytest.raises(RefusedInput, match=said):
        names_of(labels, words)
    assert names_of(["a", "b"], {"a": "good"}) == {"a": "good", "b": "b"}

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privkt_fdkt.augmentation import DemonstrationQueues, augment, balanced_prompts, read_answers
from privkt_fdkt.config import FDKTConfig

from privkt.contracts import Capability, Generation, LabelledText
from privkt.synthesis.asking import uses_chat
from privkt.synthesis.templates import TemplateConfig, make_template

LABELS = ("negative", "positive", "neither")
TEMPLATE = make_template(TemplateConfig(control="Mood: {label}"), LABELS)
ROWS = [LabelledText(f"a {label} text that is number {i}", label) for label in LABELS for i in range(5)]


def config(**changes):
    return FDKTConfig.model_validate({"template": {"control": "Mood: {label}"}, "prompts": 9} | changes)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 9))
def test_no_text_returns_before_all_were_shown(size, count, seed):
    rows = [LabelledText(str(i), "x") for i in range(size)]
    queues = DemonstrationQueues(rows, seed)
    shown = [row for _ in range(size) for row in queues.take("x", count)]
    assert sorted(shown[:size], key=lambda r: int(r.text)) == rows if count <= size else True
    assert queues.take("y", 3) == []
    again = DemonstrationQueues(rows, seed)
    assert shown == [row for _ in range(size) for row in again.take("x", count)]


def test_no_prompt_shows_a_text_twice():
    queues = DemonstrationQueues(ROWS[:5], 1)
    for _ in range(20):
        taken = queues.take("negative", 3)
        assert len(set(taken)) == 3


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_are_balanced(chat):
    wanted, prompts = balanced_prompts(ROWS, TEMPLATE, config(demonstrations=2), chat=chat, seed=0)
    assert [wanted.count(label) for label in LABELS] == [3, 3, 3]
    for label, prompt in zip(wanted, prompts, strict=True):
        text = prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
        for one in LABELS:
            assert sum(row.text in text for row in ROWS if row.label == one) == 2
        assert text.rstrip().endswith(f"Mood: {label}")


def test_many_labels_share_a_prompt_by_turns():
    labels = tuple(f"l{i}" for i in range(20))
    template = make_template(TemplateConfig(control="Mood: {label}"), labels)
    rows = [LabelledText(f"text of {label}.", label) for label in labels]
    wanted, prompts = balanced_prompts(
        rows, template, config(labels_per_prompt=3, demonstrations=1, prompts=40), chat=False, seed=0
    )
    assert all(prompt.count("text of") == 3 for prompt in prompts)
    assert all(f"text of {label}." in prompt for label, prompt in zip(wanted, prompts, strict=True))


def test_a_continued_prompt_gives_its_own_label_and_more_if_more_was_written():
    answers = [Generation("It is fine."), Generation("It is bad.\n\nMood: positive\nIt is good."), Generation("")]
    rows, report = read_answers(answers, ["neither", "negative", "positive"], TEMPLATE, chat=False)
    assert rows == [("It is fine.", "neither"), ("It is bad.", "negative"), ("It is good.", "positive")]
    assert report.to_json() == {"answers": 3, "rows": 3, "unparsed": {"code without text": 1}}


def test_a_chat_answer_may_leave_out_the_code():
    answers = [Generation("It is fine."), Generation("Sure!\n\nMood: positive\nIt is good."), Generation(" ")]
    rows, report = read_answers(answers, ["neither", "positive", "positive"], TEMPLATE, chat=True)
    assert rows == [("It is fine.", "neither"), ("It is good.", "positive")]
    assert report.unparsed == {"no control code": 1}


def test_copies_of_demonstrations_are_dropped_and_counted(fakes):
    class Parrot(fakes["llm"]):
        def generate(self, prompts, sampling, progress=None):
            return [Generation(ROWS[0].text) for _ in prompts]

    found = augment(ROWS, TEMPLATE, Parrot(), config(min_words=3), chat=False, seed=0, journal=None)
    assert found.rows == ()
    assert found.to_json()["filter"]["dropped"] == {"exact duplicate": 9}


def test_zero_shot_prompts_have_no_demonstration():
    _, prompts = balanced_prompts((), TEMPLATE, config(), chat=False, seed=0)
    assert all(prompt.count("Mood:") == 1 for prompt in prompts)


@pytest.mark.parametrize(
    ("layout", "can", "chat"),
    [
        ("auto", {Capability.CHAT}, True),
        ("auto", {Capability.CHAT, Capability.GENERATE}, False),
        ("chat", {Capability.GENERATE}, True),
        ("continue", {Capability.CHAT}, False),
    ],
)
def test_layout_follows_what_the_model_can(fakes, layout, can, chat):
    llm = fakes["llm"]()
    llm.probe = lambda: frozenset(can)
    assert uses_chat(llm, layout) is chat

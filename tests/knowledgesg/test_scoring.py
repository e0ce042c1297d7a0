"""Labels in answers, judges in both orders, and what else arms are measured by."""

import math
from dataclasses import replace

import pytest
from ksg_fakes import Base, Professional, adapter, rows
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.judging import compare, compare_by_overlap, compare_by_perplexity, verdict
from privkt_knowledgesg.method import KnowledgeSG
from privkt_knowledgesg.pairs import Pair, PairTemplateConfig, make_pair_template
from privkt_knowledgesg.scoring import (
    answers_of,
    instruction_following_difficulty,
    label_in,
    label_scores,
    perplexity,
)

from privkt.contracts import Generation, Outcome, Rows, Score
from privkt.privacy import RefusedInput

NAMES = {"0": "negative", "1": "neutral", "2": "positive"}
TEMPLATE = make_pair_template(PairTemplateConfig())


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Positive.", "2"),
        ("It is NEGATIVE, not positive", "0"),
        ("**neutral**", "1"),
        ("neutrality", "1"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_first_label_in_an_answer_counts(answer, label):
    assert label_in(answer, NAMES) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [("in 2019 I gave 5 stars", "5"), ("1", "1"), ("a good one", None), ("no", "n"), ("nothing", None)],
)
def test_a_short_name_is_a_word_of_its_own(answer, label):
    assert label_in(answer, {"1": "1", "5": "5", "n": "no", "-": "-"}) == label


def test_label_scores_by_hand():
    found = label_scores(["negative", "neutral", "what", "positive"], ["0", "0", "1", "2"], NAMES)
    # F1: negative 2/3, neutral 0, positive 1; weights 2, 1, 1.
    assert found == {"accuracy": 0.5, "weighted_f1": pytest.approx((2 * 2 / 3 + 0 + 1) / 4), "unparsed": 0.25}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (" 1", 1.0),
        ("Answer 2.", 0.0),
        ("tie", 0.5),
        ("The better answer is 2", 0.0),
        ("Answer 1 helps the asker more.", 1.0),
        ("12", None),
        ("hm", None),
        ("1 is worse than 2", None),
        ("1 and 2 are equally good", None),
        ("Answer 1 isn't better", None),
        ("1. Answer 1 says more", 1.0),
        ("1\n2 is better", None),
        ("1\n\nNo: 2", None),
        ("2\n1\ntie", None),
        ("1 is inferior", None),
        ("1 loses", None),
        ("tie, but 1 is longer", None),
        ("Tie. Both answers are equally good", 0.5),
        ("1 understands the asker", 1.0),
        ("1 (clear and detailed)", 1.0),
        ("Answer 2 has no errors", 0.0),
        ("1 is unhelpful", None),
    ],
)
def test_verdicts_of_a_judge(answer, found):
    assert verdict(answer) == found


class First(Base):
    """Prefers whatever stands first."""

    def generate(self, prompts, sampling, progress=None):
        return [Generation(" 1")] * len(prompts)


class Longer(Base):
    """Prefers the longer answer; says nothing of use about questions with an x."""

    def generate(self, prompts, sampling, progress=None):
        return [Generation(self.said(prompt)) for prompt in prompts]

    def said(self, prompt):
        if "x" in prompt.split("Answer 1: ")[0]:
            return "who knows"
        one, two = prompt.split("Answer 1: ")[1].split("\n\nAnswer 2: ")
        return "1" if len(one) > len(two.split("\n\n")[0]) else "2"


def test_the_order_of_answers_does_not_decide():
    found = compare(First(), ["q", "r"], ["a", "b"], ["c", "d"])
    assert (found.score, found.wins, found.losses) == (0.5, 2, 2)


class FirstOrNothing(First):
    """Prefers what stands first where that is the answer `a`, and says nothing that can be read otherwise."""

    def generate(self, prompts, sampling, progress=None):
        return [Generation(" 1" if "Answer 1: a" in prompt else "well") for prompt in prompts]


def test_a_question_without_a_verdict_in_one_order_is_left_out_in_both():
    found = compare(FirstOrNothing(), ["q", "r"], ["a", "a"], ["c", "d"])
    assert (found.score, found.wins, found.unreadable) == (None, 0, 4)


def test_a_judge_finds_the_better_answers_and_what_it_cannot_say_is_left_out():
    found = compare(Longer(), ["q", "x", "r"], ["long answer", "long", "no"], ["no", "a", "longer one"])
    assert (found.score, found.wins, found.ties, found.losses, found.unreadable) == (0.5, 2, 0, 2, 2)
    assert compare(Longer(), ["x"], ["a"], ["b"]).score is None


class Small(Longer):
    """Has room for short questions only."""

    context_tokens = 90

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


def test_what_a_judge_cannot_hold_is_left_out_and_counted():
    found = compare(Small(), ["q", "very " * 60], ["long answer", "long answer"], ["no", "no"])
    assert (found.score, found.wins, found.unreadable) == (1.0, 2, 2)


def test_a_model_that_only_scores_prefers_what_it_finds_likelier():
    found = compare_by_perplexity(Base(), TEMPLATE, ["q", "q", "q"], ["ab c", "a", ""], ["abcdef", "a", "a"])
    assert (found.score, found.wins, found.ties, found.losses) == (0.5, 1, 1, 1)

    class Diverged(Base):
        def score(self, prompts, continuations):
            return [Score(math.nan, 1) for _ in prompts]

    assert compare_by_perplexity(Diverged(), TEMPLATE, ["q"], ["a"], ["b"]).unreadable == 1


def test_overlap_judges_without_a_model():
    found = compare_by_overlap(["drink tea", "rest", "sleep"], ["drink tea", "run", "sleep"], ["run", "rest", "sleep"])
    assert (found.score, found.wins, found.ties, found.losses) == (0.5, 1, 1, 1)


def test_perplexity_and_difficulty_by_hand():
    class Third(Base):
        def score(self, prompts, continuations):
            rows = zip(prompts, continuations, strict=True)
            return [Score(-math.log(2 if "Instruction" in p else 8) * 3, 3) if c else Score(0.0, 0) for p, c in rows]

    assert perplexity(Third(), ["### Instruction"] * 2, ["a", "b"]) == pytest.approx(2)
    found = instruction_following_difficulty(Third(), [Pair("q", "r"), Pair("q", "")], TEMPLATE)
    assert found[0] == pytest.approx(1 / 3)  # of losses; of perplexities it would be a quarter
    assert math.isnan(found[1])


def test_predict_gives_labels_or_answers(block):
    method = KnowledgeSG(KnowledgeSGConfig.model_validate(block(fields={"response": "label"}, label_names=NAMES)))
    outcome = Outcome(model=adapter(1.0))
    (found,) = method.predict({"base": Base()}, outcome, ["text"], ["0", "1", "2"])
    assert found.label == "1"  # the shortest name is the likeliest to this stand-in
    assert 0.5 < found.probability < 1
    free = KnowledgeSG(KnowledgeSGConfig.model_validate(block()))
    (written,) = free.predict({"base": Base()}, outcome, ["text"], [])
    assert written.label == "Take a rest, says 1.0."
    assert written.probability == pytest.approx(math.exp(-len(written.label) / 5))  # of five words
    with pytest.raises(TypeError, match="run the method"):
        free.predict({"base": Base()}, Outcome(), ["text"], [])


def test_labelled_data_are_scored_by_label_and_a_judge_scores_free_text(block, make_client, make_server):
    labels = tuple("012"[i % 3] for i in range(24))
    private = Rows(rows(0, 24).text, labels, tuple(map(str, range(24))))
    for changes, held, judge, wanted in (
        (
            {"fields": {"response": "label"}, "label_names": NAMES, "professional": {"as_label": False}},
            private,
            None,
            {"accuracy", "weighted_f1", "unparsed"},
        ),
        ({}, None, Longer(), {"rouge_l", "empty", "perplexity", "win_score", "unreadable_verdicts"}),
    ):
        config = KnowledgeSGConfig.model_validate(block(baselines=["base"], **changes))
        models = {"judge": judge} if judge else None
        client = make_client(private=private if held else None, held=held, models=models, place=str(len(wanted)))
        client.data.labels = ("0", "1", "2") if held else None
        server = make_server("a", professional=Professional(), place=str(len(wanted)))
        release = KnowledgeSG(config).tune(client)
        KnowledgeSG(config).write(server, {"a": release.payload})
        outcome = KnowledgeSG(config).evaluate(client, KnowledgeSG(config).distil(server)["a"])
        assert all(set(score) == wanted for score in outcome.scores.values())
        assert list(outcome.scores) == ["base model", "KnowledgeSG"]


class Short(Base):
    """Reads a word as a token, and few of them."""

    context_tokens = 90

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


def test_rows_and_arms_that_do_not_fit_the_context_are_told_and_stop_nothing(block, make_client, make_server):
    held = rows(500, 4)
    long = Rows((*held.text, "word " * 200), None, tuple("01234"), {"response": (*held.columns["response"], "Rest.")})
    config = KnowledgeSGConfig.model_validate(block(baselines=["base", "in-context"], scoring={"max_tokens": 8}))
    client, server = make_client(base=Short(), held=long), make_server("a", professional=Professional())
    release = KnowledgeSG(config).tune(client)
    KnowledgeSG(config).write(server, {"a": release.payload})
    outcome = KnowledgeSG(config).evaluate(client, KnowledgeSG(config).distil(server)["a"])
    assert list(outcome.scores) == ["base model", "KnowledgeSG"]
    assert outcome.notes["held_out_rows_too_long"] == 1
    assert outcome.notes["held_out_rows"] == 4
    (why,) = outcome.notes["not_measured"].values()
    assert "2 private examples and a held-out row do not fit the base model's context; lower scoring.shots" in why
    one = KnowledgeSGConfig.model_validate(block(baselines=["in-context"], scoring={"max_tokens": 8, "shots": 1}))
    fits = KnowledgeSG(one).evaluate(
        make_client(base=Short(), held=long, state=client.state, place="one"), KnowledgeSG(config).distil(server)["a"]
    )
    assert len(fits.scores) == 2
    none = make_client(base=Short(), held=Rows(("word " * 200,), None, ("0",), {"response": ("Rest.",)}), place="none")
    with pytest.raises(RefusedInput, match="at least one row and its answer must fit the base model's context"):
        KnowledgeSG(one).evaluate(none, KnowledgeSG(config).distil(server)["a"])


@pytest.mark.parametrize("written", ["Rest.", "Rest.\n\n### Instruction:\nAnd now?", "Rest.\n### Input:\nAnd now?"])
def test_an_answer_ends_where_another_text_of_the_template_begins(written):
    class Says:
        def generate(self, prompts, sampling):
            ends = [written.find(mark) for mark in sampling.stop if mark in written]
            return [Generation(written[: min(ends, default=len(written))], "stop", 3) for _ in prompts]

    template = make_pair_template(PairTemplateConfig(name="chatdoctor"))
    assert answers_of(Says(), ["p"], template, 16) == ["Rest."]


class Appraiser(Professional):
    """Says something of every instruction, and never the label 1."""

    def said(self, prompt):
        return "It is negative." if len(prompt) % 2 else "POSITIVE"


def test_the_report_counts_the_labels_of_what_was_taught_so_that_a_missing_class_is_seen(block, make_server):
    changes = {"fields": {"response": "label"}, "label_names": NAMES, "baselines": ["dp-pairs", "teacher-on-seeds"]}
    method = KnowledgeSG(KnowledgeSGConfig.model_validate(block(**changes)))
    server = make_server("a", professional=Appraiser())
    server.clients["a"] = replace(server.clients["a"], labels=("0", "1", "2"))
    method.write(server, {"a": adapter(1.0)})
    report = server.state.load_json("report")["a"]
    (texts,) = (server.state.load(name) for name in server.state.names() if name.startswith("pairs-"))
    taught = list(zip(texts.columns["arm"], texts.columns["response"], strict=True))
    for arm in ("knowledgesg", "teacher-on-seeds"):
        assert list(report["labels"][arm]) == list(NAMES.values())
        assert report["labels"][arm] == {name: taught.count((arm, name)) for name in NAMES.values()}
        assert sum(report["labels"][arm].values()) == report["pairs"][arm] > 0
        assert report["labels"][arm][NAMES["1"]] == 0
    # Written without a teacher, and no label is in it: counted among the pairs, and for none of the labels.
    assert report["pairs"]["dp-pairs"] > 0 == sum(report["labels"]["dp-pairs"].values())
    free = KnowledgeSG(KnowledgeSGConfig.model_validate(block(baselines=[])))
    other = make_server("a", place="-free")
    free.write(other, {"a": adapter(1.0)})
    assert "labels" not in other.state.load_json("report")["a"]


def test_labels_of_two_letters_are_found_where_no_spaces_are_written():
    names = {"pos": "正面", "neg": "负面", "5": "5"}
    assert [label_in(text, names) for text in ("这条新闻是正面的。", "答案是负面", "15星", "我给5星")] == [
        "pos", "neg", None, "5",
    ]  # fmt: skip
    assert label_scores(["这条新闻是正面的。"], ["pos"], names)["accuracy"] == 1


def test_only_so_many_held_out_rows_are_scored(block, make_client, make_server):
    config = KnowledgeSGConfig.model_validate(block(baselines=[], scoring={"rows": 4}))
    client, server, method = make_client(), make_server("a"), KnowledgeSG(config)
    method.write(server, {"a": method.tune(client).payload})
    assert method.evaluate(client, method.distil(server)["a"]).notes["held_out_rows"] == 4
    assert server.state.load_json("report")["a"]["licence of the professional model"] == "made up"

"""Which instructions stay, with the count of each reason."""

import pytest
from ksg_fakes import Base, Professional, rows
from privkt_knowledgesg.answering import answer, is_refusal
from privkt_knowledgesg.config import FilterConfig, KnowledgeSGConfig, ProfessionalConfig
from privkt_knowledgesg.filtering import InstructionFilter, verdict
from privkt_knowledgesg.pairs import Pair, PairTemplateConfig, make_pair_template
from privkt_knowledgesg.seeds import public_seeds
from privkt_knowledgesg.writing import Writer
from pydantic import ValidationError

from privkt.contracts import Generation, Rows

TEMPLATE = make_pair_template(PairTemplateConfig())
SEEDS = public_seeds(Rows(("How do I treat a burn on my left hand at home?",)), None)


def kept(config, *texts, ended=True, ask=None):
    made = InstructionFilter(FilterConfig(**config), TEMPLATE, SEEDS, chat=False)
    found = made.keep([(Pair(text), ended) for text in texts], ask)
    return [pair.question for pair in found], made.report.dropped, made


LONG = "My father has had a bad cough since he moved to the sea, and his doctor is away until the end of next month"


def test_every_reason_is_counted_once():
    texts = [
        LONG,
        LONG.upper(),
        LONG + " or so",
        "?!",
        "Short one",
        "word " * 300,
        "Say ### Response: and go on",
        "How do I treat a burn on my left hand at home?",
        "How do I treat a burn on my right hand at home?",
        "What should a runner eat before a long race?",
    ]
    found, dropped, made = kept({}, *texts)
    assert found == [LONG, "What should a runner eat before a long race?"]
    assert made.to_json()["duplicate_rate"] == pytest.approx(3 / 10)
    assert dropped == {
        "exact duplicate": 2,
        "near duplicate": 1,
        "malformed": 2,
        "too short": 1,
        "too long": 1,
        "too like a public seed (TF-IDF)": 1,
    }
    assert made.report.came == len(texts) == made.report.kept + sum(dropped.values())


def test_rouge_measures_novelty_too():
    text = "How do I treat a burn on my right foot at home?"
    assert kept({"tfidf": None, "rouge_l": 0.7}, text)[1] == {"too like a public seed (ROUGE-L)": 1}
    assert kept({"tfidf": None, "rouge_l": 0.9}, text)[0] == [text]


@pytest.mark.parametrize(
    ("rule", "found"),
    [("keep", ["One two three four. Five six sev"]), ("trim", ["One two three four."]), ("drop", [])],
)
def test_what_ran_out_of_tokens(rule, found):
    assert kept({"unfinished": rule}, "One two three four. Five six sev", ended=False)[0] == found
    assert kept({"unfinished": rule}, "One two three four", ended=True)[0] == ["One two three four"]
    made = InstructionFilter(FilterConfig(unfinished=rule), TEMPLATE, SEEDS, chat=False)
    cut = [Pair("What helps against a cold?", "Drink te")]
    assert made.keep([(cut[0], False)]) == ([] if rule == "drop" else cut)


def test_the_professional_model_judges_domain_and_quality():
    answers = iter([["yes", "No.", "what?"], ["Yes", "no"]])

    def ask(prompts, title):
        assert all(prompt.endswith("Answer:") for prompt in prompts)
        return [Generation(text) for text in next(answers)]

    texts = ["First question of them all?", "Second thing to be asked now?", "Third and last of these ones?"]
    found, dropped, made = kept({"domain": "medicine", "quality": True}, *texts, ask=ask)
    assert found == texts[:1]
    assert dropped == {"not of the domain": 1, "of low quality": 1}
    assert made.to_json()["unreadable_judgements"] == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Yes", True),
        (" no, it is not", False),
        ("**Yes**", True),
        ("Answer: no", False),
        ("Yesterday", None),
        ("", None),
    ],
)
def test_verdicts(text, found):
    assert verdict(text) is found


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, I cannot answer.",
        "Sorry, I cannot give advice.",
        "As an AI language model, I have no body.",
        "I cannot provide medical advice.",
        "I can’t assist with this request.",
        "I apologize, but I cannot help with that.",
        "My apologies, but I can't do this.",
        "I'm an AI language model and can't examine you.",
        "I must decline.",
        "I'm unable to say anything about it.",
        "Unfortunately, as an AI I have no access to it.",
        "I'm sorry.",
        "I'm afraid I can't help you here.",
        "I'm sorry to hear that, but I cannot give medical advice.",
        "I am sorry, but I am only a language model.",
        "Unfortunately, I am not a doctor.",
        "I cannot prescribe medication.",
        "I can't recommend a treatment; please see a doctor.",
        "I cannot make a diagnosis. Please see a doctor.",
        "I'm not a doctor and cannot give medical advice.",
        "Hello, I'm sorry but I cannot help with that.",
        "Thank you for your question. Unfortunately, I cannot help with that.",
        "I'm sorry, but I don't have enough information to answer.",
        "As an AI language model, I cannot diagnose, but rest is often good.",
    ],
)
def test_refusals(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that. Rest and drink.",
        "Sorry to hear about your knee; use ice.",
        "I'm sorry you are going through this. Rest.",
        "I'm afraid this is a broken toe; see a doctor.",
        "I am afraid of nothing that you tell me; take rest.",
        "I'm sorry to hear that you can't sleep. Try tea.",
        "Unfortunately, antibiotics do not help against colds.",
        "I don't think that it is broken.",
        "I do not advise surgery at this stage. Rest and ice the knee for two weeks.",
        "I don't advise antibiotics for a viral sore throat.",
        "I cannot diagnose this without seeing it, but it sounds like ringworm. Use clotrimazole cream twice a day.",
        "I am sorry to hear about your pain, I don't know your age but it is most likely gastritis. Take omeprazole.",
        "Sorry for the late reply, I couldn't answer earlier. Your ECG is normal.",
        "Sorry to hear about your knee, I couldn't agree more that it needs rest.",
        "I'm afraid I can't rule out a fracture without an x-ray. Have one taken.",
        "I'm sorry you are going through this, but I don't feel that it is serious. Take ibuprofen.",
        "Unfortunately I could not see your attached picture, but from your description it is eczema.",
        "Hello, thank you for writing. I am a doctor, and this is a cold.",
        "You cannot provide blood while you are ill.",
        "As an adult you need eight hours of sleep.",
        "Doctors say: I cannot help with that. They are wrong.",
    ],
)
def test_answers_that_are_no_refusals(text):
    assert not is_refusal(text)


def test_responses_are_dropped_and_counted(tmp_path):
    class Mixed(Professional):
        def said(self, prompt):
            answers = {"1": "", "2": "I cannot help with that.", "3": "Fine.", "4": "Go to bed early."}
            return answers[prompt.split("Question ")[1][0]]

    pairs = [Pair(f"Question {n}") for n in "1234"]
    config = ProfessionalConfig(min_words=2)
    found, report = answer(pairs, TEMPLATE, Mixed(), config, chat=False, seed=0, journal=tmp_path / "answers.jsonl")
    assert found == (Pair("Question 4", "Go to bed early."),)
    assert report.dropped == {"empty response": 1, "refusal": 1, "response too short": 1}


def test_a_model_that_chats_is_told_the_task(tmp_path):
    class Chatty(Professional):
        def generate(self, prompts, sampling, progress=None):
            self.log["prompts"] += prompts
            return [Generation("Rest well.") for _ in prompts]

    template, model = make_pair_template(PairTemplateConfig(name="chatdoctor", task="Be a doctor.")), Chatty()
    found, _ = answer(
        [Pair("I cough.")], template, model, ProfessionalConfig(), chat=True, seed=0, journal=tmp_path / "a.jsonl"
    )
    assert found == (Pair("I cough.", "Rest well."),)
    assert [turn.content for prompt in model.log["prompts"] for turn in prompt] == ["Be a doctor.\n\nI cough."]


def test_responses_become_labels_where_labels_are_asked_for(tmp_path):
    class Wordy(Professional):
        def said(self, prompt):
            return "I would call it Positive." if "First" in prompt else "Hard to say."

    names = {"0": "negative", "2": "positive"}
    found, report = answer(
        [Pair("First"), Pair("Second")], TEMPLATE, Wordy(), ProfessionalConfig(), chat=False, seed=0,
        journal=tmp_path / "answers.jsonl", names=names,
    )  # fmt: skip
    assert found == (Pair("First", "positive"),)
    assert report.dropped == {"no label in the response": 1}


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("closing", "names", "wanted"),
    [
        (None, {"0": "negative", "2": "positive"}, "\n\nAnswer with one of these words alone: negative, positive."),
        (None, None, ""),
        ("", {"0": "negative"}, ""),
        ("In one word.", {"0": "negative"}, "\n\nIn one word."),
        ("In one sentence.", None, "\n\nIn one sentence."),
    ],
)
def test_the_professional_alone_is_told_how_to_answer(tmp_path, chat, closing, names, wanted):
    class Clear(Professional):
        def generate(self, prompts, sampling, progress=None):
            self.log["prompts"] += prompts
            return [Generation("negative") for _ in prompts]

    model = Clear()
    found, _ = answer(
        [Pair("Sales fell.")], TEMPLATE, model, ProfessionalConfig(closing=closing), chat=chat, seed=0,
        journal=tmp_path / "answers.jsonl", names=names,
    )  # fmt: skip
    assert found == (Pair("Sales fell.", "negative"),)
    (asked,) = model.log["prompts"]
    said = asked[0].content if chat else asked
    assert f"Sales fell.{wanted}" in said
    assert "Answer with" not in said.replace(wanted, "") if wanted else "Answer with" not in said
    assert said.rstrip().endswith(f"Sales fell.{wanted}" if chat else TEMPLATE.response_mark)


def writer(config, professional=None):
    made = KnowledgeSGConfig.model_validate(config)
    return Writer(made, TEMPLATE, SEEDS, professional, chat=False, seed=3)


def test_writing_goes_on_where_it_was_cut(block, tmp_path):
    config = block(filters={"tfidf": None, "domain": "medicine"})
    whole = writer(config, Professional()).write(Base(), tmp_path / "whole", pairs=False)

    class Broken(Base):
        def generate(self, prompts, sampling, progress=None):
            if len(self.log["prompts"]) >= 10:
                raise KeyboardInterrupt
            return super().generate(prompts, sampling, progress)

    with pytest.raises(KeyboardInterrupt):
        writer(config, Professional()).write(Broken(), tmp_path / "cut", pairs=False)
    base = Base()
    again = writer(config, Professional()).write(base, tmp_path / "cut", pairs=False)
    assert again == whole
    assert len(base.log["prompts"]) == whole.draws - 10
    assert not any("knee" in pair.question for pair in whole.pairs)
    assert whole.filtered["dropped"]["not of the domain"] > 0


def test_writing_ends_and_says_how_much_is_missing(block, tmp_path):
    class Same(Base):
        def generate(self, prompts, sampling, progress=None):
            self.log["prompts"] += prompts
            return [Generation("Always the very same question?")] * len(prompts)

    made = writer(block(writing={"count": 5, "attempts": 3})).write(Same(), tmp_path, pairs=False)
    assert len(made.pairs) == 1
    assert made.draws == 15
    assert made.filtered["dropped"] == {"exact duplicate": 14}


def test_seeds_must_be_declared_public_and_are_needed_for_public_seeding(block):
    with pytest.raises(ValidationError, match="public"):
        KnowledgeSGConfig.model_validate(block(seeds={"public": False}))
    with pytest.raises(ValidationError, match="must have `header` or `own`"):
        KnowledgeSGConfig.model_validate({"writing": {"seeding": ["public"]}})
    assert rows(0, 1).text


def test_a_response_in_one_go_has_room_of_its_own(block, tmp_path):
    seen = []

    class Noting(Base):
        def generate(self, prompts, sampling, progress=None):
            seen.append((sampling.max_new_tokens, sampling.stop))
            return super().generate(prompts, sampling, progress)

    made = writer(block(writing={"count": 1, "max_tokens": 50}, professional={"max_tokens": 70}))
    pairs = made.write(Noting(), tmp_path / "a", pairs=True).pairs
    made.write(Noting(), tmp_path / "b", pairs=False)
    made.respond(Noting(), pairs, tmp_path / "c.jsonl")
    assert [tokens for tokens, _ in seen] == [120, 50, 70]
    assert ["### Response:" in stop for _, stop in seen] == [False, True, False]


def test_what_is_asked_for_in_scripts_without_spaces_is_long_enough():
    assert kept({"min_words": 8, "max_words": 20}, "我咳嗽三天了，该怎么办？", "你好")[:2] == (
        ["我咳嗽三天了，该怎么办？"],
        {"too short": 1},
    )


def test_sampling_is_as_the_config_says(block, tmp_path):
    class Notes(Base):
        def generate(self, prompts, sampling, progress=None):
            self.log.setdefault("sampling", []).append(sampling)
            return super().generate(prompts, sampling, progress)

    own = {"count": 2, "temperature": 0.9, "top_k": 7, "top_p": 0.8, "max_tokens": 33, "portion": 128}
    model, professional = Notes(), Notes()
    writer(block(writing=own)).write(model, tmp_path, pairs=False)
    rule = ProfessionalConfig(temperature=0.3, top_p=0.6, max_tokens=12)
    answer([Pair("My knee?")], TEMPLATE, professional, rule, chat=False, seed=0, journal=tmp_path / "answers.jsonl")
    first = model.log["sampling"][0]
    assert (first.temperature, first.top_k, first.top_p, first.max_new_tokens) == (0.9, 7, 0.8, 33)
    (asked,) = professional.log["sampling"]
    assert (asked.temperature, asked.top_p, asked.max_new_tokens) == (0.3, 0.6, 12)


def test_a_seeds_response_is_shown_only_where_pairs_are_written(block, tmp_path):
    seeds = public_seeds(Rows(("Does tea help?",), columns={"response": ("It does.",)}), "response")
    config = KnowledgeSGConfig.model_validate(block(writing={"count": 1, "seeding": ["public"], "attempts": 1}))
    for pairs in (False, True):
        model = Base()
        made = Writer(config, TEMPLATE, seeds, None, chat=False, seed=3)
        made.write(model, tmp_path / str(pairs), pairs=pairs)
        assert all("Does tea help?" in prompt for prompt in model.log["prompts"])
        assert any("It does." in prompt for prompt in model.log["prompts"]) is pairs

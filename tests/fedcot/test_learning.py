"""From rationales to a small model: prompts, decoding, the filter, both tasks, every arm."""

import json

import pytest
from fedcot_fakes import LABELS, Large, Small, rows
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig, SlmConfig
from privkt_fedcot.decoding import Decoder, Explained
from privkt_fedcot.learning import TaskModel, kept_rationales
from privkt_fedcot.method import FedCoT
from privkt_fedcot.prompts import (
    answer_prompt,
    cleaned,
    decoding_prompt,
    explain_prompt,
    rationale_prompt,
    worked_example,
)
from privkt_fedcot.tasks import Question, Task, said_label

from privkt.contracts import NoProgress, PublicFacts, Rows, Texts
from privkt.privacy import Budget, RefusedInput

TASK = Task(FedCoTConfig().task, LABELS)
QUESTION = Question("which colour has the fox", ("green", "red", "blue"))


def play(config, client, server):
    """The whole protocol of one client; (what crossed, what came back, the outcome)."""
    sent = FedCoT(config).perturb(client)
    (answers,) = FedCoT(config).explain(server, {client.id: sent.payload}).values()
    FedCoT(config).decode(client, answers)
    return sent.payload, answers, FedCoT(config).learn(client)


@pytest.mark.parametrize("labels", [LABELS, ("A", "B"), ("1", "2", "3", "4", "5")])
def test_the_worked_example_of_every_task_says_its_own_answer(labels):
    task = Task(FedCoTConfig().task, labels)
    text = worked_example(task, None)
    asked, reason = text.split("\nReason: ")
    choices = tuple(line.split(". ", 1)[1] for line in asked.split("\n")[1:])
    assert len(choices) == len(labels)
    assert said_label(task, Question("", choices), reason) == labels[0]


def test_yes_no_needs_a_label_that_says_no():
    config = FedCoTConfig.model_validate({"task": {"kind": "yes-no", "context": "p"}})
    assert worked_example(Task(config.task, ("no", "yes")), None).endswith("So the answer is no")
    assert worked_example(Task(config.task, ("True", "False")), None).endswith("So the answer is False")
    with pytest.raises(RefusedInput, match=r"fedcot\.rationale\.worked"):
        worked_example(Task(config.task, ("left", "right")), None)
    assert worked_example(Task(config.task, ("left", "right")), " mine\n") == "mine"


def test_the_large_model_sees_the_perturbed_question_alone():
    prompt = rationale_prompt(QUESTION, TASK, "W", chat=False)
    assert prompt.endswith("W\n\nQuestion: which colour has the fox\nA. green\nB. red\nC. blue\nReason:")
    chat = rationale_prompt(QUESTION, TASK, "W", chat=True)
    assert [turn.role for turn in chat] == ["system", "user"]
    assert chat[1].content.endswith("B. red\nC. blue")


def test_decoding_shows_the_pair_and_leaves_the_true_rationale_open():
    perturbed = Question("which whale", ("x", "y", "z"))
    prompt = decoding_prompt(QUESTION, perturbed, "R", TASK, "W")
    parts = prompt.split("\n\n")
    assert parts[1] == "W"
    assert parts[2] == "Question: which whale\nA. x\nB. y\nC. z\nReason: R"
    assert parts[3] == "Question: which colour has the fox\nA. green\nB. red\nC. blue\nReason:"


def test_a_rationale_is_its_first_paragraph_on_one_line():
    assert cleaned(" a\nb  c \n\nQuestion: next") == "a b c"


def test_the_filter_keeps_what_agrees_with_the_clients_own_label():
    said = ["So the answer is B. red", "So the answer is A. green", "no idea", ""]
    kept = kept_rationales(TASK, [QUESTION] * 4, ["B"] * 4, said, "agrees")
    assert kept.rationales == (said[0], "", "", "")
    assert (kept.written, kept.agreeing, kept.used) == (3, 1, 1)
    assert kept_rationales(TASK, [QUESTION] * 4, ["B"] * 4, said, "none").rationales == tuple(said)


def test_both_tasks_weigh_as_configured_and_rows_without_a_rationale_answer_alone():
    model = TaskModel(Small(), SlmConfig(rationale_weight=0.3), TASK, 0, NoProgress())
    found = model.examples([QUESTION] * 2, ["B", "C"], ["R", ""])
    assert [(e.prompt, e.completion, e.weight) for e in found] == [
        (answer_prompt(QUESTION, TASK), " red", 0.7),
        (explain_prompt(QUESTION, TASK), " R", 0.3),
        (answer_prompt(QUESTION, TASK), " blue", 0.7),
    ]
    assert [e.weight for e in model.examples([QUESTION], ["B"], [""])] == [1.0]
    assert answer_prompt(QUESTION, TASK) != explain_prompt(QUESTION, TASK)


def test_the_decoder_keeps_no_prompt_and_skips_questions_without_rationales():
    slm = Small()
    decoder = Decoder(slm, FedCoTConfig(), TASK, seed=0, progress=NoProgress())
    pairs = [Explained(QUESTION, QUESTION, "So the answer is B. red"), Explained(QUESTION, QUESTION, "")]
    assert decoder.decode(pairs) == ["So the answer is B. red", ""]
    assert len(slm.prompts) == 1


def test_every_arm_is_scored_and_only_fedcots_model_is_kept(block, make_client, make_server):
    """At a large epsilon the perturbed questions keep their animals, and the server's rationales teach."""
    config = FedCoTConfig.model_validate(
        block(baselines=[a for a in Arm if a is not Arm.FEDCOT], perturbation={"epsilon": 40.0})
    )
    client = make_client(models={"local_llm": Large()})
    _, _, outcome = play(config, client, make_server("a"))
    assert list(outcome.scores) == [arm.heading for arm in Arm]
    assert outcome.scores[Arm.LARGE.heading] == {"accuracy": 1.0}
    notes = outcome.notes["arms"]
    assert notes[Arm.FEDCOT.heading]["protection"] == "release"
    assert notes[Arm.RAW.heading]["protection"] == "none"
    assert notes[Arm.RAW.heading]["rationales"] == {"written": 24, "agreeing": 24, "used": 24}
    assert notes[Arm.FEDCOT.heading]["rationales"]["used"] >= 20
    assert "rationales" not in notes[Arm.LABEL_ONLY.heading]
    assert outcome.notes["main"] == Arm.FEDCOT.heading
    assert (outcome.model.folder / "seen.json").exists()


def test_the_self_rationale_arm_asks_no_server(block, make_client, make_server):
    config = FedCoTConfig.model_validate(block(baselines=["self-rationale"]))
    private = rows(0, 24, extra=" quoth")  # no draw over the vocabulary says that by chance
    client, server = make_client(private=private), make_server("a")
    play(config, client, server)
    slm, llm = client.models["slm"], server.models["llm"]
    assert len(llm.prompts) == 24
    assert sum("quoth" in prompt for prompt in slm.prompts) == 2 * 24  # its own rationales, and decoded ones
    assert not any("quoth" in prompt for prompt in llm.prompts)


def test_nothing_of_the_server_reads_a_private_row(block, make_client, make_server):
    """At a tiny epsilon, what the large model is asked has nothing to do with the rows."""
    config = FedCoTConfig.model_validate(block(perturbation={"epsilon": 1e-3}))
    client, server = make_client(size=60), make_server("a")
    sent, _, _ = play(config, client, server)
    private = rows(0, 60)
    kept = [
        w == v for a, b in zip(private.text, sent.text, strict=True) for w, v in zip(a.split(), b.split(), strict=False)
    ]
    assert sum(kept) / len(kept) < 0.15  # one of about twenty words, plus chance


def test_a_server_that_answers_for_other_rows_is_refused(block, make_client, make_server):
    config = FedCoTConfig.model_validate(block())
    client, server = make_client(), make_server("a")
    sent = FedCoT(config).perturb(client)
    (answers,) = FedCoT(config).explain(server, {"a": sent.payload}).values()
    short = Texts(answers.text[1:], None, {name: column[1:] for name, column in answers.columns.items()})
    with pytest.raises(RefusedInput, match="one rationale for each of 24 questions, got 23"):
        FedCoT(config).decode(client, short)


def test_a_trained_decoder_learns_from_public_questions_alone(block, make_client, make_server, tmp_path):
    public = rows(500, 10)
    place = tmp_path / "public.jsonl"
    place.write_text(
        "\n".join(
            json.dumps({"text": t, "label": label, "choices": json.loads(c)})
            for t, label, c in zip(public.text, public.label, public.columns["choices"], strict=True)
        )
    )
    data = {"source": "json", "path": str(place), "text": "text", "columns": ["choices"], "public": True}
    config = FedCoTConfig.model_validate(
        block(decoder={"kind": "trained", "public": data, "encode_weight": 0.25}, baselines=[])
    )
    private = rows(0, 24, extra=" quoth")  # no draw over the vocabulary says that by chance
    client, server = make_client(private=private), make_server("a")
    _, answers, _ = play(config, client, server)
    assert answers.columns["kind"] == ("row",) * 24 + ("public",) * 10
    examples = client.models["slm"].trained[0]
    assert sorted({e.weight for e in examples}) == [0.25, 0.75]
    assert not any("quoth" in e.prompt + e.completion for e in examples)
    assert sum(text in e.prompt for e in examples for text in set(public.text)) >= 10


def test_a_trained_decoder_needs_public_questions_and_a_public_epsilon(block):
    facts, budget = PublicFacts("a", 24, LABELS), Budget(500.0, 1e-5, neighbouring="local")
    named = {"path": "x", "public": True}
    for changes, message in (
        ({"decoder": {"kind": "trained"}}, r"fedcot\.decoder\.public"),
        (
            {"decoder": {"kind": "trained", "public": named}, "perturbation": {"epsilon": None}},
            r"fedcot\.perturbation\.epsilon",
        ),
    ):
        with pytest.raises(RefusedInput, match=message):
            FedCoT(FedCoTConfig.model_validate(block(**changes))).plan(facts, budget)


def test_arms_without_a_guarantee_need_a_model_of_this_process(block, make_client):
    config = FedCoTConfig.model_validate(block(baselines=["raw-prompts"]))
    with pytest.raises(RefusedInput, match="needs the role 'local_llm'"):
        FedCoT(config).perturb(make_client())
    remote = Large()
    remote.remote = True
    with pytest.raises(RefusedInput, match="the remote 'local_llm' may not see it"):
        FedCoT(config).perturb(make_client(models={"local_llm": remote}))
    skipping = FedCoTConfig.model_validate(block(baselines=["raw-prompts"], missing_models="skip"))
    FedCoT(skipping).perturb(make_client())


def test_predict_answers_free_questions_and_refuses_those_with_choices(block, make_client, make_server):
    colours = ("red", "green", "blue")
    asked = rows(0, 24)
    listed = [json.loads(c) for c in asked.columns["choices"]]
    labels = tuple(c[LABELS.index(label)] for c, label in zip(listed, asked.label, strict=True))
    config = FedCoTConfig.model_validate(block(task={"kind": "free-text"}, baselines=[]))
    client = make_client(private=Rows(asked.text, labels))
    client.data.labels = colours
    client.evaluation = None
    server = make_server("a")
    server.clients = {"a": PublicFacts("a", 24, colours)}
    _, _, outcome = play(config, client, server)
    assert outcome.scores == {}
    found = FedCoT(config).predict({"slm": Small()}, outcome, ["has the whale", "has the fox"], colours)
    assert [p.label for p in found] == ["blue", "red"]
    choosing = FedCoT(FedCoTConfig.model_validate(block()))
    with pytest.raises(RefusedInput, match="rows have choices or passages too"):
        choosing.predict({"slm": Small()}, outcome, ["q"], LABELS)

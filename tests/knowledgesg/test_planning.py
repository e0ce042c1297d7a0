"""What a plan says from declared numbers alone."""

import json

import pytest
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.method import KnowledgeSG
from pydantic import ValidationError

from privkt.cli.running import plan_lines
from privkt.contracts import PublicFacts
from privkt.privacy import Budget, RefusedInput


def plan(block, size=2000, labels=None, roles=None):
    facts = PublicFacts("a", size, labels, roles=roles)
    return KnowledgeSG(KnowledgeSGConfig.model_validate(block)).plan(facts, Budget(8.0, 1e-5))


def test_one_training_with_all_of_its_steps(block):
    made = plan(block(tuning={"batch_size": 100, "epochs": 10}))
    (training,) = made.trainings
    assert (training.steps, training.sampling_rate) == (200, 0.05)
    assert 7.9 < training.guarantee.epsilon <= 8
    assert training.guarantee.replace_one_epsilon > training.guarantee.epsilon
    assert made.bytes_out is None


def test_requests_are_counted_for_every_arm_that_a_teacher_answers(block):
    writing = {"count": 50, "attempts": 2}
    assert plan(block(writing=writing, baselines=[])).llm_requests == 50
    assert plan(block(writing=writing, baselines=["no-private-data"])).llm_requests == 100
    judged = plan(block(writing=writing, baselines=["no-private-data"], filters={"domain": "medicine"}))
    # Both sets of instructions are judged, each draw once at most.
    assert judged.llm_requests == 100 + 2 * 2 * 50
    assert judged.llm_new_tokens == 100 * 128 + 200 * 4


def test_the_public_seeds_that_a_baseline_has_answered_are_counted(block, tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"text": f"What is {what}?", "response": "It varies."} for what in ("a cough", "a fever", "asthma")]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    writing, given = {"count": 50}, {"path": str(seeds), "public": True}
    without = plan(block(writing=writing, baselines=[], seeds=given))
    answered = plan(block(writing=writing, baselines=["teacher-on-seeds"], seeds=given))
    assert (without.llm_requests, answered.llm_requests) == (50, 53)
    assert answered.llm_new_tokens == without.llm_new_tokens + 3 * 128
    assert answered.llm_prompt_tokens > without.llm_prompt_tokens
    seeds.unlink()  # a report made later plans again
    assert plan(block(writing=writing, baselines=["teacher-on-seeds"], seeds=given)).llm_requests == 50


def test_the_closing_words_and_the_seeds_as_they_are_count_in_requests_and_contexts(block, tmp_path):
    def needed(**changes):
        method = KnowledgeSG(KnowledgeSGConfig.model_validate(block(**changes)))
        return method.context_needed(PublicFacts("a", 2000, ("0", "1")))

    long = " ".join(["word"] * 1000)
    closed = {"professional": {"closing": long}}
    assert needed(**closed)["professional"] >= needed()["professional"] + 1400
    assert plan(block(**closed)).llm_prompt_tokens >= plan(block()).llm_prompt_tokens + 1400 * 12
    by_default = plan(block(fields={"response": "label"}, label_names={"0": "negative"}), labels=("0", "1"))
    assert by_default.llm_prompt_tokens > plan(block()).llm_prompt_tokens
    seeds = tmp_path / "long.jsonl"
    seeds.write_text(json.dumps({"text": long, "response": long}) + "\n")
    given = {"path": str(seeds), "public": True, "response": "response", "columns": ["response"]}
    assert 1400 <= needed(seeds=given, baselines=[])["base"] < 2000
    assert needed(seeds=given, baselines=["dp-pairs"])["base"] >= 2800  # where pairs are written it has its response
    assert needed(seeds=given, baselines=[])["professional"] < 1000
    unseen = {"seeding": ["header"]}
    assert needed(seeds=given, baselines=["teacher-on-seeds"], writing=unseen)["base"] < 500  # no prompt shows them
    assert needed(seeds=given, baselines=["teacher-on-seeds"])["professional"] >= 1400
    seeds.write_text(json.dumps({"text": "咳" * 1000}, ensure_ascii=False) + "\n")
    given = {"path": str(seeds), "public": True, "response": None, "columns": []}
    assert 1000 <= needed(seeds=given, baselines=[])["base"] < 1400  # letters of a script without spaces


def test_a_judge_without_anything_to_read_is_told(block):
    for response, told in (("label", True), ("response", False)):
        made = plan(block(fields={"response": response}), labels=("0", "1"), roles=frozenset({"judge"}))
        assert any("models.judge is not asked" in line for line in made.warnings) is told


def test_the_licence_of_the_professional_model_is_said_or_asked_for(block):
    named = plan(block(professional={"licence": "Llama 2 community licence"}))
    assert any("Llama 2 community licence" in line for line in named.not_covered)
    assert not any("licence" in line for line in named.warnings)
    silent = plan(block(professional={"licence": None}))
    assert any("professional.licence is not given" in line for line in silent.warnings)


def test_the_control_without_private_data_is_missed(block):
    assert any("no-private-data" in line for line in plan(block(baselines=["base"])).warnings)
    assert not any("no-private-data" in line for line in plan(block()).warnings)


def test_seeds_that_nobody_gave_are_missed(block):
    assert any("no public `seeds` are given" in line for line in plan(block(seeds=None)).warnings)
    assert not any("`seeds`" in line for line in plan(block()).warnings)


def test_arms_that_use_rows_as_they_are_are_named(block):
    lines = plan(block(baselines=["private", "in-context"])).not_covered
    assert sum("without any noise" in line for line in lines) == 2


def test_small_batches_are_warned_of_and_large_ones_refused(block):
    few = plan(block(tuning={"batch_size": 5, "epochs": 1}))
    assert any("mostly noise" in line and "tuning.batch_size" in line for line in few.warnings)
    with pytest.raises(RefusedInput, match=r"knowledgesg\.tuning\.batch_size must be at most the declared size 20"):
        plan(block(tuning={"batch_size": 21}), size=20)


def test_the_plan_in_words_does_not_invent_a_size(block):
    lines = list(plan_lines(plan(block())))
    assert any("bytes that will cross" in line and "follow from the model's shape" in line for line in lines)


def test_every_baseline_is_in_a_comparison_and_seeds_are_needed_for_one(block):
    config = KnowledgeSG(KnowledgeSGConfig.model_validate(block())).comparison()
    assert set(config.arms) == set(Arm)
    without = KnowledgeSGConfig.model_validate(block(seeds=None, baselines=["teacher-on-seeds"]))
    assert without.arms == (Arm.KNOWLEDGESG,)


def test_one_adapter_for_all_cannot_start_from_each_ones_own(block):
    with pytest.raises(ValidationError, match="together trains one adapter"):
        KnowledgeSGConfig.model_validate(block(together=True, student={"start": "adapter"}))

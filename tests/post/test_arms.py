"""Every switch through the local runtime: families, variants, alphas, sets, students of one's own, answers, attacks."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from post_models import LABELS, WORDS, make_model, sentences, write
from privkt_post.arms import Arm
from privkt_post.config import POSTConfig
from privkt_post.method import POST
from privkt_post.prompts import rows_of

from privkt.config import parse_config
from privkt.contracts import PublicFacts
from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.render import write_report
from privkt.plugins import get_manager
from privkt.privacy import Budget, RefusedInput
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts
from privkt.runtime.preflight import prepare


@pytest.fixture
def run(tmp_path):
    """Runs a config; (outcome of client a, the provider's report, path)."""

    def go(raw, name="run"):
        result = LocalRuntime(parse_config(raw), tmp_path / name, get_manager()).run()
        server = build_report(result.path)["server"]["0"]
        return result.outcomes["a"][0], server["transfers"]["a"], result.path

    return go


def parse_and_check(raw):
    return prepare(parse_config(raw), get_manager())


def labelled_public(files, name, mood=None):
    rows = [row for row in sentences(60, seed=21) if mood in (None, row["mood"])]
    path = write(Path(files["public"]).with_name(f"{name}.jsonl"), rows)
    labels = {} if mood else {"label": "mood", "labels": LABELS}
    return {"source": "json", "path": path, "text": "text", "public": True, **labels}


@pytest.mark.parametrize(
    "family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow), pytest.param("roberta", marks=pytest.mark.slow)]
)
def test_a_run_of_every_family(raw, run, models, family):
    outcome, moved, path = run(raw(model=models[family]))
    assert len(outcome.scores) == 5
    assert moved["steps"] == 6
    assert len(predict_texts(path, ["the meal was cold"])) == 1


def test_every_arm_with_one_report(raw, run):
    settings = raw(
        baselines=[arm.value for arm in Arm],
        inference={"mechanism": "exponential", "tokens": 6, "epsilon": 3.0, "queries": 10},
        membership={"models": 4},
    )
    outcome, moved, path = run(settings)
    assert list(outcome.scores) == [arm.heading for arm in Arm]
    notes = outcome.notes
    assert "epsilon = 17.9" in notes["inference"]["a text"]  # six tokens, each certified a little below 3
    assert "document level, local" in notes["inference"]["a text"]
    assert "user level" in notes["inference"]["a person"]
    assert notes["arms"][Arm.QUERIES.heading]["protection"].endswith("; texts that are asked: ε = 17.95 each")
    assert notes["membership"]["models"] == 4
    assert 0 <= notes["membership"]["auc"] <= 1
    assert {"tuning the small model's prompt", "tuning a prompt on the large model"} < set(notes["seconds"])
    assert moved["seconds"] > 0
    outbound = b"".join(p.read_bytes() for p in (path / "outbound").rglob("*") if p.is_file())
    assert b"auc" not in outbound
    assert b"accuracy" not in outbound
    (charge,) = build_report(path)["clients"]["a"]["trainings"]
    assert charge["purpose"] == "post: tune the prompt"


def test_the_inference_time_variant_makes_no_prompt(raw, run):
    outcome, moved, path = run(raw(transfer={"variant": "inference"}))
    assert moved == {"variant": "inference"}
    assert outcome.notes["main"] == Arm.INFERENCE.heading
    assert "POST" not in outcome.scores
    found = predict_texts(path, ["the meal was cold stale", "the room was warm kind"])
    assert all(0.5 <= p.probability <= 1 for p in found)


def test_variants_and_alphas(raw, run, files):
    found = {}
    for name, changes in {
        "output": {"variant": "output"},
        "zero": {"alpha": 0.0},
        "public": {"alpha": "public", "public": [labelled_public(files, "labelled")]},
    }.items():
        settings = raw(transfer=changes, baselines=[], tuning={"private": False})
        found[name] = run(settings, name)
    assert found["output"][1]["alpha"] == found["zero"][1]["alpha"] == 0.0
    assert torch.equal(*(rows_of(found[name][0].model) for name in ("output", "zero")))
    assert 0 <= found["public"][1]["alpha"] <= 1


def test_what_the_config_alone_shows_to_be_impossible_is_refused_by_the_plan(raw):
    settings = POSTConfig.model_validate(raw()["post"])
    facts = PublicFacts("a", 48, ("negative", "positive"), held_out_columns=(), roles=frozenset({"target"}))
    budget = Budget(8, 1e-3)
    with pytest.raises(RefusedInput, match="has no role `local_target`"):
        POST(settings).plan(facts, budget)
    POST(settings).plan(replace(facts, roles=facts.roles | {"local_target"}), budget)
    POST(settings).plan(replace(facts, held_out_columns=None), budget)  # nothing is scored
    POST(settings.model_copy(update={"missing_models": "skip"})).plan(facts, budget)
    words = {"negative": ["bad"], "positive": ["good", "bad"]}
    task = settings.task.model_copy(update={"words": words})
    with pytest.raises(RefusedInput, match="every word must stand for one label, once, and 'bad'"):
        POST(settings.model_copy(update={"task": task})).plan(replace(facts, roles=None), budget)


def test_perturbed_queries_need_a_mechanism_and_a_prompt(raw):
    with pytest.raises(RefusedInput, match="private-queries` asks with perturbed texts behind the transferred prompt"):
        parse_and_check(raw(baselines=["private-queries"]))
    asked = {"mechanism": "exponential", "tokens": 6, "epsilon": 3.0}
    parse_and_check(raw(baselines=["private-queries"], inference=asked))
    with pytest.raises(RefusedInput, match=r"a transfer\.variant that makes a prompt"):
        parse_and_check(raw(baselines=["private-queries"], inference=asked, transfer={"variant": "inference"}))
    without = POST(POSTConfig.model_validate(raw()["post"])).comparison()
    assert Arm.QUERIES not in without.baselines
    assert Arm.QUERIES in POST(POSTConfig.model_validate(raw(inference=asked)["post"])).comparison().baselines


def test_alpha_from_public_texts_needs_their_labels(raw, run):
    with pytest.raises(RefusedInput, match="public needs public texts with the task's own labels"):
        run(raw(transfer={"alpha": "public"}))


def test_the_heuristic_needs_the_large_model_at_the_client(raw, run):
    settings = raw(transfer={"alpha": "heuristic"}, missing_models="skip")
    del settings["models"]["local_target"]
    with pytest.raises(RefusedInput, match="heuristic counts what the large model answers"):
        run(settings)


@pytest.mark.parametrize("how", ["features", "statistic"])
def test_a_public_set_is_chosen_among_several(raw, run, files, how):
    sets = [labelled_public(files, "cold", "negative"), labelled_public(files, "both")]
    _, moved, path = run(raw(transfer={"public": sets, "choose": how}, baselines=[], statistic={"epsilon": 4.0}))
    assert moved["public_set"] == max(range(2), key=lambda i: moved["public_scores"][i])
    crossed = [(c["message"], c["rows"]) for c in build_report(path)["crossed"]]
    assert crossed == [("soft-prompt", 1), ("texts", 2 if how == "statistic" else 0)]


@pytest.mark.parametrize(
    ("changes", "kind", "measured"),
    [
        pytest.param({"words": [*reversed(WORDS)]}, "shared", True, marks=pytest.mark.slow),
        ({"words": [*reversed(WORDS)], "match": "words", "initial": "mapped"}, "words", True),
        ({"width": 48, "initial": "mapped"}, "full", False),
    ],
)
def test_a_small_model_of_ones_own(raw, run, tmp_path, changes, kind, measured):
    transfer = {key: changes.pop(key) for key in ("match", "initial") if key in changes}
    settings = raw(transfer=transfer)
    small = make_model("llama", tmp_path / "small", layers=2, seed=5, **changes)
    settings["models"]["student"] = {**settings["models"]["target"], "model": str(small)}
    outcome, moved, path = run(settings)
    assert moved["compared_over"]["match"] == kind
    assert (Arm.DIRECT.heading in outcome.scores) is measured
    if not measured:
        assert "widths differ" in outcome.notes["not_measured"][Arm.DIRECT.heading]
    assert rows_of(outcome.model, 32).shape == (4, 32)
    assert predict_texts(path, ["the meal was cold"])


def test_another_large_model_at_the_client_is_told(raw, run, tmp_path):
    settings = raw(baselines=[])
    settings["budget"] |= {"cap_epsilon": 16, "cap_delta": 2e-3}  # for both runs
    same, _, _ = run(settings, "same")
    assert "warning" not in same.notes
    other = make_model("llama", tmp_path / "other-model", seed=9)
    settings["models"]["local_target"] = {**settings["models"]["target"], "model": str(other)}
    outcome, _, path = run(settings, "other")
    assert "not those of the provider's model" in outcome.notes["warning"]
    assert "not those of the provider" in write_report(path)[0].read_text()


def test_answers_that_are_written(raw, run, files, tmp_path):
    def rows(count, seed):
        return [{"text": r["text"], "film": " ".join(r["text"].split()[-2:])} for r in sentences(count, seed)]

    settings = raw(
        task={"kind": "generation", "answer": "film", "answer_tokens": 3, "words": {}},
        baselines=["zero-shot", "student-prompt", "inference-time", "target-prompt"],
    )
    columns = {"source": "json", "text": "text", "columns": ["film"]}
    train, test = write(tmp_path / "t.jsonl", rows(48, 1)), write(tmp_path / "e.jsonl", rows(12, 2))
    settings["clients"][0]["data"] = {"name": "films", "size": 48, "path": train, **columns}
    settings["evaluation"]["data"] = {"path": test, **columns}
    settings["post"]["transfer"]["public"] = [
        {"path": write(tmp_path / "p.jsonl", rows(20, 3)), **columns, "public": True}
    ]
    outcome, moved, path = run(settings)
    assert {tuple(score) for score in outcome.scores.values()} == {("exact",)}
    assert len(outcome.scores) == 5
    assert moved["steps"] == 6
    with pytest.raises(RefusedInput, match="this task writes answers"):
        predict_texts(path, ["the meal was cold"])


def test_a_run_that_was_cut_neither_tunes_nor_pays_again(raw, run, tmp_path, monkeypatch):
    from privkt_post import clients, results

    settings = raw(baselines=[])
    real = results.Arms.judge
    monkeypatch.setattr(results.Arms, "judge", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    sent = {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()}
    monkeypatch.setattr(results.Arms, "judge", real)
    monkeypatch.setattr(clients, "tune_prompt", lambda *a: pytest.fail("the prompt was tuned again"))
    outcome, _, _ = run(settings)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()} == sent
    assert outcome.scores


def plan(raw, unit="record", **changes):
    """The plan of a client with 48 rows."""
    config = POSTConfig.model_validate(json.loads(json.dumps(raw(**changes)["post"])))
    return POST(config).plan(PublicFacts("a", 48, tuple(LABELS)), Budget(8.0, 1e-3, unit=unit))


def test_what_plans_say(raw):
    assert any("in clear" in line for line in plan(raw).not_covered)
    asked = plan(raw, inference={"mechanism": "exponential", "tokens": 6, "epsilon": 3.0, "queries": 10}).not_covered
    assert any("each costs at most epsilon = 18" in line and "180" in line for line in asked)
    assert any("promises nothing" in line for line in plan(raw, tuning={"private": False}).not_covered)
    assert plan(raw, tuning={"private": False}).trainings == ()
    for changes in ({}, {"tuning": {"private": False}}):
        with pytest.raises(RefusedInput, match=r"budget\.unit must be record"):
            plan(raw, unit="user", **changes)
    assert any("mostly noise" in line for line in plan(raw, tuning={"batch_size": 4}).warnings)
    assert any("steps are few" in line for line in plan(raw, tuning={"epochs": 1}).warnings)
    with_votes = plan(raw, transfer={"public": raw()["post"]["transfer"]["public"] * 2, "choose": "statistic"})
    assert with_votes.statistics[0].guarantee.epsilon == 0.5
    assert with_votes.trainings[0].guarantee.epsilon <= 7.5


@pytest.mark.parametrize(
    ("mechanism", "options", "said"),
    [
        ("rantext", {}, "perturbed by rantext, which promises nothing"),
        ("santext", {"calibrate": "metric"}, "each costs 6 times the certificate of its law"),
        ("santext", {}, "each costs at most epsilon = 18 (6 tokens at 3), and a person with 10 of them 180"),
    ],
)
def test_a_plans_price_of_a_query_is_that_of_its_mechanism(raw, mechanism, options, said):
    asked = {"mechanism": mechanism, "options": options, "tokens": 6, "epsilon": 3.0, "queries": 10}
    lines = plan(raw, inference=asked).not_covered
    assert any(said in line for line in lines)
    assert ("at most epsilon" in said) == any("at most epsilon" in line for line in lines)


def test_a_plan_prints_its_counts_and_loads_no_model_library(raw, tmp_path):
    from privkt.cli.running import plan_lines

    made = plan(raw, transfer={"alpha": "heuristic"})
    lines = list(plan_lines(made))
    assert any("post: noisy counts" in line and "epsilon = 0.5, delta = 0" in line for line in lines)
    assert any("two counts of correct answers, each at epsilon = 0.25" in line for line in lines)
    code = "import sys, privkt_post.method; print('torch' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split() == ["False", "False"], done.stderr

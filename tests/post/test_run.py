"""POST through the local runtime with tiny random models: the plan is what is charged, and only a prompt crosses."""

import json
from pathlib import Path

import pytest
import torch
from privkt_post.answering import make_reader
from privkt_post.networks import open_net
from privkt_post.prompts import rows_of
from privkt_post.tasks import Task

from privkt.config import parse_config
from privkt.plugins import get_manager
from privkt.privacy import Ledger, RefusedInput, epsilon, event_from_json
from privkt.privacy.guarantee import rounded_up
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts

MADE = ("POST", "large model, no prompt (ZS)", "small model, its prompt (cPT)")


def run(raw, folder):
    return LocalRuntime(parse_config(raw), folder, get_manager()).run()


def charges(name="moods-a"):
    return [e.body for e in Ledger.open(name).entries() if e.kind == "charge"]


def test_a_whole_run(raw, tmp_path):
    settings = raw()
    result = run(settings, tmp_path / "run")
    outcome = result.outcomes["a"][0]
    assert set(MADE) < set(outcome.scores)
    assert len(outcome.scores) == 5
    assert all(0 <= score["accuracy"] <= 1 for score in outcome.scores.values())
    assert [(c.step, c.message, c.rows) for c in result.crossed] == [("tune", "soft-prompt", 1), ("weigh", "texts", 0)]
    (charge,) = charges()
    (planned,) = result.plans["a"].trainings
    assert epsilon(event_from_json(charge["event"]), planned.delta) == pytest.approx(
        planned.guarantee.epsilon, rel=5e-3
    )
    assert result.totals["a"].spent.epsilon <= 8.0
    train = Path(settings["clients"][0]["data"]["path"]).read_text().splitlines()
    outbound = b"".join(p.read_bytes() for p in (result.path / "outbound").rglob("*") if p.is_file())
    assert not any(json.loads(line)["text"].encode() in outbound for line in train)
    card = next((result.path / "outbound").rglob("*.md")).read_text()
    assert "epsilon = 8" in card
    assert "epsilon = 8" in outcome.model.files["README.md"].decode()


def test_predict_uses_the_transferred_prompt(raw, tmp_path):
    result = run(raw(), tmp_path / "run")
    found = predict_texts(result.path, ["the meal was cold stale", "the room was warm kind"])
    assert {p.label for p in found} <= {"negative", "positive"}
    assert all(0.5 <= p.probability <= 1 for p in found)


@pytest.mark.parametrize("variant", ["both", "inference"])
def test_calibrated_scores_are_judged_and_predicted_alike_with_the_constants_of_the_run(
    raw, llama, files, tmp_path, variant
):
    settings = raw(task={"calibrate": True}, transfer={"variant": variant, "match": "words"})
    result = run(settings, tmp_path / "run")
    outcome = result.outcomes["a"][0]
    offset = outcome.notes["calibration"]
    assert len(set(offset.values())) == 2
    Path(files["public"]).write_text("")  # nobody reads it again
    held = [json.loads(line) for line in Path(files["test"]).read_text().splitlines()]
    found = [p.label for p in predict_texts(result.path, [row["text"] for row in held])]
    own = "POST" if variant == "both" else "large model, shifted by the small one at inference"
    accuracy = sum(a == row["mood"] for a, row in zip(found, held, strict=True)) / len(held)
    assert accuracy == pytest.approx(outcome.scores[own]["accuracy"])
    if variant == "both":
        net = open_net(llama, {"dtype": "float32", "device": "cpu"})
        task = Task(("negative", "positive"), " it was", (("bad",), ("good",)))
        reader = make_reader(net, task, 16, prompt_tokens=4).behind(rows_of(outcome.model))
        scores = reader.class_scores([row["text"] for row in held]) - torch.tensor(
            [offset[label] for label in ("negative", "positive")]
        )
        said = [p.probability for p in predict_texts(result.path, [row["text"] for row in held])]
        assert said == pytest.approx(scores.softmax(-1).max(-1).values.tolist(), abs=1e-4)


def test_two_users_and_two_seeds_share_one_student_and_pay_once_each(raw, tmp_path, store):
    result = run(raw(clients=("a", "b")) | {"seeds": [0, 1]}, tmp_path / "run")
    assert sorted(result.outcomes["a"]) == sorted(result.outcomes["b"]) == [0, 1]
    assert len(charges("moods-a")) == len(charges("moods-b")) == 1
    names = {result.outcomes[client][seed].notes["student"]["name"] for client in "ab" for seed in (0, 1)}
    assert len(names) == 1
    assert (store / names.pop() / "model.safetensors").is_file()
    assert "otherwise" in result.statement


def test_the_counts_of_the_heuristic_are_charged_beside_the_prompt(raw, tmp_path):
    settings = raw(transfer={"alpha": "heuristic"}, statistic={"epsilon": 2.0})
    result = run(settings, tmp_path / "run")
    planned = result.plans["a"]
    assert planned.statistics[0].guarantee.epsilon == 2.0
    assert planned.trainings[0].guarantee.epsilon <= 6.0
    assert len(charges()) == 2
    outcome = result.outcomes["a"][0]
    made = f"epsilon = {rounded_up(planned.trainings[0].guarantee.epsilon + 2)}"
    assert made == "epsilon = 8"
    # The transfer was told both: what it made has both prices.
    assert made in outcome.notes["statement"]
    assert made in outcome.model.files["README.md"].decode()
    protected = {arm: about["protection"] for arm, about in outcome.notes["arms"].items()}
    assert protected["POST"] == "ε = 8"
    assert protected["small model, its prompt (cPT)"] == "ε = 6"
    assert 7.9 <= result.totals["a"].spent.epsilon <= 8.0
    assert [(c.step, c.rows) for c in result.crossed] == [("tune", 1), ("weigh", 2)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuning": {"batch_size": 49}}, "batch_size must be at most the declared size 48, got 49"),
        ({"task": {"words": {"negative": ["bad"]}}}, "every label must have words, and 'positive' has none"),
        ({"transfer": {"alpha": 1.5}}, "alpha must lie in"),
        ({"transfer": {"alpha": "heuristic"}, "statistic": {"epsilon": 9}}, "must be below the budget's 8, got 9"),
        ({"task": {"name": "sst5"}}, "must be custom or one of sst2"),
        ({"inference": {"mechanism": "geometric"}}, "post.inference.mechanism: mechanism 'geometric' draws no tokens"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(raw, tmp_path, changes, said):
    with pytest.raises(RefusedInput) as refused:
        run(raw(**changes), tmp_path / "run")
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_without_a_large_model_at_the_client_only_its_own_is_judged(raw, tmp_path):
    settings = raw(missing_models="skip")
    del settings["models"]["local_target"]
    outcome = run(settings, tmp_path / "run").outcomes["a"][0]
    assert list(outcome.scores) == ["small model, its prompt (cPT)"]
    assert "POST" in outcome.notes["not_measured"]
    with pytest.raises(RefusedInput, match="local_target"):
        predict_texts(tmp_path / "run", ["the meal was cold"])


def test_a_prompt_without_privacy_stays_in_this_process(raw, tmp_path):
    result = run(raw(tuning={"private": False}), tmp_path / "run")
    assert result.crossed == ()
    assert not list((result.path / "outbound").rglob("*.safetensors"))
    assert charges() == []
    assert "no privacy guarantee" in result.outcomes["a"][0].notes["statement"]


@pytest.mark.parametrize("where", ["transfer", "corpus"])
def test_a_users_own_file_is_no_public_set_of_the_provider(raw, files, tmp_path, where):
    LocalRuntime(parse_config(raw()), tmp_path / "run", get_manager()).preflight()
    own = {"source": "json", "path": files["train"], "text": "text"}
    changed = raw(transfer={"public": [own]}) if where == "transfer" else raw(distillation={"corpus": own})
    with pytest.raises(RefusedInput, match=r"public data .* names the data of client 'a'"):
        LocalRuntime(parse_config(changed), tmp_path / "run", get_manager()).preflight()

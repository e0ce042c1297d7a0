"""KnowledgeSG through the local runtime with a small random model: only an adapter leaves, at the planned price."""

import json

import pytest
from privkt_knowledgesg.arms import Arm

from privkt.config import parse_config
from privkt.evaluation.report.render import write_report
from privkt.plugins import get_manager
from privkt.privacy import Ledger, RefusedInput, epsilon, event_from_json
from privkt.runtime.errors import RunFailed
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts


def write_rows(path, count, start=0, who="patient"):
    lines = [
        {"text": f"{who} {i}: what helps against cough {i % 7} and a cold?", "response": f"tea and rest, {who} {i}"}
        for i in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def raw(wide_llama, tmp_path, monkeypatch):
    """The config of a small run as plain values."""
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "state"))
    columns = {"source": "json", "text": "text", "columns": ["response"]}
    model = {"backend": "transformers", "model": str(wide_llama), "device": "cpu", "dtype": "float32"}

    def client(name, start=0):
        path = write_rows(tmp_path / f"{name}.jsonl", 24, start)
        return {"name": name, "data": {"name": f"visits-{name}", "size": 24, "path": str(path), **columns}}

    seeds = write_rows(tmp_path / "seeds.jsonl", 4, 500, "anybody")
    return {
        "method": "knowledgesg",
        "budget": {"epsilon": 8, "delta": 1e-3},
        "clients": [client("a"), client("b", 100)],
        "models": {"base": dict(model), "professional": dict(model)},
        "evaluation": {"data": {"path": str(write_rows(tmp_path / "test.jsonl", 4, 1000)), **columns}},
        "knowledgesg": {
            "template": {"preamble": ""},
            "tuning": {"batch_size": 8, "epochs": 1, "max_length": 96, "lora": {"rank": 2}, "loss": "pair"},
            "seeds": {"path": str(seeds), "public": True, "response": "response", **columns},
            "writing": {"count": 4, "shots": 1, "max_tokens": 24, "seeding": ["public", "header", "own"]},
            "filters": {"min_words": 1, "unfinished": "keep"},
            "professional": {"licence": "made up", "max_tokens": 12},
            "student": {"epochs": 1, "batch_size": 4, "max_length": 96, "lora": {"rank": 2}},
            "scoring": {"max_tokens": 8},
            "baselines": ["base", "dp-adapter", "no-private-data"],
        },
        "seeds": [0],
    }


def run(raw, tmp_path, name="run"):
    return LocalRuntime(parse_config(raw), tmp_path / name, get_manager()).run()


def test_a_whole_run_of_two_clients_and_two_seeds(raw, tmp_path):
    result = run(raw | {"seeds": [0, 1]}, tmp_path)
    for client in "ab":
        for seed in (0, 1):
            outcome = result.outcomes[client][seed]
            assert list(outcome.scores) == [
                "base model",
                "DP adapter alone",
                "teacher on the base model's instructions, no private data",
                "KnowledgeSG",
            ]
            assert all(set(s) == {"rouge_l", "empty", "perplexity"} for s in outcome.scores.values())
            assert outcome.notes["overlap"]["instructions"]["texts"] >= 1
        (charge,) = [e.body for e in Ledger.open(f"visits-{client}").entries() if e.kind == "charge"]
        (planned,) = result.plans[client].trainings
        assert planned.steps == 3
        paid = epsilon(event_from_json(charge["event"]), planned.delta)
        assert paid == pytest.approx(planned.guarantee.epsilon, rel=5e-3)
        assert result.totals[client].spent.epsilon <= 8.0
    assert [(c.client, c.step, c.message, c.rows) for c in result.crossed] == [
        ("a", "tune", "adapter", 1),
        ("b", "tune", "adapter", 1),
    ]
    cards = [p.read_text() for p in (result.path / "outbound").rglob("*.md")]
    assert len(cards) == 2
    assert all("dp-sgd" in card.lower() for card in cards)
    private = [json.loads(line)["text"].encode() for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    outbound = b"".join(p.read_bytes() for p in (result.path / "outbound").rglob("*") if p.is_file())
    assert not any(row in outbound for row in private)


def test_every_baseline_runs_and_the_student_may_start_from_the_adapter(raw, tmp_path):
    block = raw["knowledgesg"]
    block["baselines"] = [arm.value for arm in Arm]
    block["student"] = block["student"] | {"start": "adapter"}
    block["writing"] = block["writing"] | {"shape": "pair", "count": 2, "max_tokens": 40}
    raw |= {"clients": raw["clients"][:1], "models": raw["models"] | {"judge": raw["models"]["base"]}}
    result = run(raw, tmp_path)
    outcome = result.outcomes["a"][0]
    # A random model writes no response mark, so arms that want pairs of it have none, and the notes say so.
    missing = {Arm.DP_PAIRS.heading}
    assert set(outcome.scores) == {arm.heading for arm in Arm} - missing
    assert outcome.notes["not_measured"] == dict.fromkeys(missing, "no pair passed the filters and was answered")
    assert all("unreadable_verdicts" in scores for scores in outcome.scores.values())
    assert [c.step for c in result.crossed] == ["tune"]
    found = predict_texts(result.path, ["what helps against a cold?"])
    assert len(found) == 1
    assert 0 <= found[0].probability <= 1
    assert set(outcome.model.files) >= {"adapter_config.json", "adapter_model.safetensors"}
    assert str(tmp_path).encode() not in outcome.model.files["adapter_config.json"]


def test_a_run_that_was_cut_sends_the_same_adapter_and_pays_once(raw, tmp_path, monkeypatch):
    from privkt_knowledgesg.distilling import Server

    def interrupted(*_):
        raise KeyboardInterrupt

    raw |= {"clients": raw["clients"][:1]}
    raw["knowledgesg"]["baselines"] = []
    with monkeypatch.context() as patched:
        patched.setattr(Server, "_taught", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path)
    sent = {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()}
    result = run(raw, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()} == sent
    assert len(Ledger.open("visits-a").charges()) == 1
    assert result.outcomes["a"][0].scores


def test_filters_that_let_nothing_through_are_loosened_and_nothing_is_paid_again(raw, tmp_path):
    raw |= {"clients": raw["clients"][:1]}
    raw["knowledgesg"]["baselines"] = []
    strict = raw | {"knowledgesg": raw["knowledgesg"] | {"filters": {"min_words": 190}}}
    with pytest.raises(RunFailed, match="give the corrected config with --resume"):
        run(strict, tmp_path)
    html = write_report(tmp_path / "run")[0].read_text()
    assert "too short" in html  # the counts that say why
    result = run(raw, tmp_path)
    assert result.outcomes["a"][0].scores
    assert len(Ledger.open("visits-a").charges()) == 1
    with pytest.raises(RefusedInput, match=r"knowledgesg\.filters\.min_words differs"):
        run(strict, tmp_path)


def test_a_shared_adapter_says_whose_guarantee_it_repeats(raw, tmp_path):
    raw["knowledgesg"] |= {"baselines": [], "together": True}
    result = run(raw, tmp_path)
    for name in "ab":
        (folder,) = (result.path / "private" / "models" / name).iterdir()
        card = " ".join((folder / "README.md").read_text().split())
        assert f"For records of client {name} alone: epsilon" in card
        assert "somebody with rows at several is owed the sum of theirs" in card


def test_the_adapter_that_came_back_says_what_guarantee_it_has(raw, tmp_path):
    raw |= {"clients": raw["clients"][:1]}
    raw["knowledgesg"]["baselines"] = []
    result = run(raw, tmp_path)
    (folder,) = (result.path / "private" / "models" / "a").iterdir()
    card = (folder / "README.md").read_text()
    assert str(result.plans["a"].trainings[0].guarantee) in card
    assert "began as the base model and was taught by the server" in " ".join(card.split())
    assert "For records of client" not in card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": {"path": "x", "public": False}}, "public"),
        ({"writin": {}}, "did you mean 'writing'"),
        ({"template": {"name": "custom"}}, "must hold {question} once"),
        ({"tuning": {"batch_size": 25}}, "at most the declared size 24"),
        ({"writing": {"max_tokens": 900}}, "must take about"),
        ({"seeds": {"path": "x", "public": True}}, "knowledgesg, public data 'x' (json): `path` names no file"),
        ({"seeds": {"path": "x", "public": True, "response": "r"}}, "`columns` does not list it"),
        ({"filters": {"min_words": 9, "max_words": 5}}, "min_words must be at most max_words, got 9 and 5"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_spent(raw, tmp_path, change, said):
    raw["knowledgesg"] |= change
    with pytest.raises(RefusedInput) as refused:
        run(raw, tmp_path)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_run_without_any_pair_says_why_and_is_mended_without_another_charge(raw, tmp_path):
    raw["knowledgesg"] |= {"filters": raw["knowledgesg"]["filters"] | {"min_words": 150}, "baselines": []}
    with pytest.raises(RunFailed, match=r"got none; of 0 that passed, dropped: .*\d+ too short\."):
        run(raw, tmp_path)
    raw["knowledgesg"]["filters"]["min_words"] = 1
    resumed = LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).run()
    assert resumed.outcomes["a"][0].model is not None
    assert Ledger.open(raw["clients"][0]["data"]["name"]).spent().epsilon <= 8


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"response": "label"}, "client 'a', data: fields.response: label needs a column of labels, got none"),
        ({"messages": True}, "client 'a', data: fields.messages: row 1 must be a JSON list of objects with role"),
    ],
)
def test_rows_that_are_no_pairs_are_refused_when_planned(raw, tmp_path, fields, said):
    LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).preflight()
    raw["knowledgesg"]["fields"] = fields
    with pytest.raises(RefusedInput) as refused:
        LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).preflight()
    assert said in str(refused.value)


def test_missing_columns_are_refused_before_the_charge(raw, tmp_path):
    raw["knowledgesg"]["fields"] = {"response": "reply"}
    with pytest.raises(RefusedInput, match=r"fields\.response: the rows must have the column 'reply'"):
        run(raw, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_clients_own_rows_are_no_public_seeds_whatever_the_block_says(raw, tmp_path):
    LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).preflight()
    raw["knowledgesg"]["seeds"]["path"] = str(tmp_path / "b.jsonl")
    with pytest.raises(RefusedInput, match=r"public data .* names the data of client 'b'"):
        LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).preflight()

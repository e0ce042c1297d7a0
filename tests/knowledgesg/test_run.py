"""KnowledgeSG through the local runtime with a small random model: only an adapter leaves, at the planned price."""

import json

import pytest

from privkt.config import parse_config
from privkt.plugins import get_manager
from privkt.privacy import Ledger, epsilon, event_from_json
from privkt.runtime.local import LocalRuntime


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
            assert outcome.notes["overlap"]["texts"] >= 1
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

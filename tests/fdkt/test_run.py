"""FDKT through the local runtime with a small random model: the plan is what is charged, and only texts cross."""

import json

import pytest

from privkt.config import parse_config
from privkt.plugins import get_manager
from privkt.privacy import Ledger, LedgerMissing, RefusedInput, epsilon, event_from_json
from privkt.runtime.local import LocalRuntime

LABELS = ["negative", "positive"]
WORDS = {"negative": "cold stale rude slow dirty", "positive": "warm fresh kind quick clean"}


def write_rows(path, count, start=0):
    lines = [
        {"text": f"visit {i} was {WORDS[LABELS[i % 2]]} indeed, said guest {i}", "mood": LABELS[i % 2]}
        for i in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def raw(wide_llama, tmp_path, monkeypatch):
    """The config of a small run as plain values."""
    monkeypatch.setenv("PRIVKT_STATE", str(tmp_path / "state"))
    columns = {"source": "json", "text": "text", "label": "mood"}
    model = {"backend": "transformers", "model": str(wide_llama), "device": "cpu", "dtype": "float32"}

    def client(name, start=0):
        path = write_rows(tmp_path / f"{name}.jsonl", 48, start)
        data = {"name": f"visits-{name}", "size": 48, "path": str(path), "labels": LABELS, **columns}
        return {"name": name, "data": data}

    return {
        "method": "fdkt",
        "budget": {"epsilon": 8, "delta": 1e-3},
        "clients": [client("a")],
        "make_client": client,
        "models": {"generator": model | {"lora": {"rank": 4}}, "slm": dict(model), "llm": dict(model)},
        "evaluation": {"data": {"path": str(write_rows(tmp_path / "test.jsonl", 20, 1000)), **columns}},
        "fdkt": {
            "template": {"control": "Mood: {label}"}, "samples_per_label": 6, "max_tokens": 24, "min_words": 1,
            "min_characters": 1, "prompts": 6, "demonstrations": 1, "llm": {"max_tokens": 24},
            "generator": {"batch_size": 24, "epochs": 2, "max_length": 64},
            "slm": {"epochs": 3, "weights": [1.0]}, "attempts": 9,
        },
        "seeds": [0],
    }  # fmt: skip


def run(raw, tmp_path, name="run"):
    config = parse_config({key: value for key, value in raw.items() if key != "make_client"})
    return LocalRuntime(config, tmp_path / name, get_manager()).run()


def test_a_whole_run(raw, tmp_path):
    result = run(raw, tmp_path)
    outcome = result.outcomes["a"][0]
    assert list(outcome.scores) == ["private data alone", "private + DP synthetic", "FDKT"]
    assert all(0 <= score["accuracy"] <= 1 for score in outcome.scores.values())
    assert [(c.client, c.step, c.message, c.rows) for c in result.crossed] == [("a", "synthesize", "texts", 12)]
    (charge,) = [e.body for e in Ledger.open("visits-a").entries() if e.kind == "charge"]
    (planned,) = result.plans["a"].trainings
    assert result.totals["a"].spent.epsilon <= 8.0
    assert result.totals["a"].spent.epsilon == pytest.approx(planned.guarantee.epsilon, rel=1e-3)
    paid = epsilon(event_from_json(charge["event"]), planned.delta)
    assert paid == pytest.approx(planned.guarantee.epsilon, rel=5e-3)
    text = json.dumps(charge["event"])
    assert "Poisson" in text
    private = [json.loads(line)["text"].encode() for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    outbound = b"".join(p.read_bytes() for p in (result.path / "outbound").rglob("*") if p.is_file())
    assert not any(row in outbound for row in private)


def test_seeds_share_one_generator_and_one_charge(raw, tmp_path):
    result = run(raw | {"seeds": [0, 1]}, tmp_path)
    assert sorted(result.outcomes["a"]) == [0, 1]
    assert len([e for e in Ledger.open("visits-a").entries() if e.kind == "charge"]) == 1
    assert len({c.sha256 for c in result.crossed}) == 2


def test_one_server_many_clients(raw, tmp_path):
    raw = raw | {"clients": [raw["make_client"]("a"), raw["make_client"]("b", 100)]}
    raw["fdkt"] = raw["fdkt"] | {"baselines": [], "template": {"control": "Mood at {domain}: {label}", "domain": "x"}}
    raw["fdkt"]["domains"] = {"a": "the cafe", "b": "the hotel"}
    result = run(raw, tmp_path)
    assert {name: list(by_seed) for name, by_seed in result.outcomes.items()} == {"a": [0], "b": [0]}
    assert "otherwise" in result.statement


def test_every_baseline_runs(raw, tmp_path):
    raw["models"] = raw["models"] | {"local_llm": raw["models"]["llm"], "embedder": raw["models"]["llm"]}
    raw["fdkt"] = raw["fdkt"] | {
        "baselines": [
            "private", "synthetic", "private+synthetic", "zero-shot", "no-selection", "no-noise", "raw-demonstrations",
        ]
    }  # fmt: skip
    result = run(raw, tmp_path)
    assert len(result.outcomes["a"][0].scores) == 8
    assert [c.step for c in result.crossed] == ["synthesize"]
    assert result.totals["a"].spent.epsilon <= 8.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generator": {"batch_size": 49}}, "batch_size must be at most the declared size 48, got 49"),
        ({"samples_per_labl": 3}, "did you mean 'samples_per_label'"),
        ({"template": {"control": "Mood"}}, "must contain {label} once"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_spent(raw, tmp_path, change, said):
    raw["fdkt"] = raw["fdkt"] | change
    with pytest.raises(RefusedInput) as refused:
        run(raw, tmp_path)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "state").exists() or not list((tmp_path / "state").rglob("*.sqlite*"))


def test_open_arms_without_a_local_model_are_refused(raw, tmp_path):
    raw["fdkt"] = raw["fdkt"] | {"baselines": ["no-noise"]}
    with pytest.raises(RefusedInput, match="local_llm"):
        run(raw, tmp_path)
    with pytest.raises(LedgerMissing):  # refused before one is made
        Ledger.open("visits-a")


def test_5_padding_is_not_trained_on(wide_llama):
    """A record's loss is the same alone and beside a longer one, and a training ignores what pads its batch."""
    from privkt_transformers.backend import TransformersBackend

    from privkt.contracts import BackendContext

    backend = TransformersBackend({"model": str(wide_llama), "dtype": "float32", "device": "cpu"}, BackendContext())
    short, long = "cold soup", "a very much longer review of the place " * 5
    alone = backend.score(["Mood: negative\n"], [short])[0]
    beside = backend.score(["Mood: negative\n"] * 2, [short, long])[0]
    assert beside.tokens == alone.tokens
    assert beside.logprob == pytest.approx(alone.logprob, abs=1e-4)

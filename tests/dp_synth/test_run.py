"""DP generation with control codes through the local runtime with a small random model."""

import json

import pytest
from privkt_dp_synth.method import DPSynth

from privkt.config import parse_config
from privkt.plugins import get_manager
from privkt.privacy import Ledger, RefusedInput
from privkt.runtime.errors import RunFailed
from privkt.runtime.local import LocalRuntime
from privkt.runtime.prediction import predict_texts

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
    path = write_rows(tmp_path / "a.jsonl", 48)
    return {
        "method": "dp_synth",
        "budget": {"epsilon": 8, "delta": 1e-3},
        "client": {"data": {"name": "visits", "size": 48, "path": str(path), "labels": LABELS, **columns}},
        "models": {"generator": model | {"lora": {"rank": 4}}, "slm": dict(model)},
        "evaluation": {"data": {"path": str(write_rows(tmp_path / "test.jsonl", 10, 1000)), **columns}},
        "dp_synth": {
            "template": {"control": "Mood: {label}"}, "samples_per_label": 4, "max_tokens": 16, "min_words": 1,
            "min_characters": 1, "attempts": 9, "generator": {"batch_size": 24, "epochs": 2, "max_length": 64},
            "slm": {"epochs": 1}, "output": str(tmp_path / "made" / "texts.jsonl"),
        },
    }  # fmt: skip


def run(raw, tmp_path):
    return LocalRuntime(parse_config(raw), tmp_path / "run", get_manager()).run()


def test_texts_are_published_once_paid_and_a_small_model_learns_from_them(raw, tmp_path):
    result = run(raw | {"seeds": [0, 1]}, tmp_path)
    outcome = result.outcomes["client"][0]
    assert list(outcome.scores) == ["DP synthetic alone", "private data alone (not private)"]
    lines = [json.loads(line) for line in (tmp_path / "made" / "texts.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == ["negative"] * 4 + ["positive"] * 4
    assert all(line["text"] and line["client"] == "client" for line in lines)
    assert (tmp_path / "made" / "texts-seed1.jsonl").exists()
    assert len(Ledger.open("visits").charges()) == 1
    assert [(c.step, c.message, c.rows) for c in result.crossed] == [("synthesize", "texts", 8)] * 2
    (planned,) = result.plans["client"].trainings
    assert Ledger.open("visits").charges()[0].planned == planned.guarantee
    found = predict_texts(result.path, ["cold and rude", "warm and kind"])
    assert {p.label for p in found} <= set(LABELS)


def test_without_a_small_model_texts_are_all_there_is(raw, tmp_path):
    raw["models"].pop("slm")
    output = tmp_path / "made" / "texts.jsonl"
    output.parent.mkdir()
    output.write_text("somebody's work")
    result = run(raw, tmp_path)
    assert output.read_text() == "somebody's work"
    assert len(output.with_name("texts-2.jsonl").read_text().splitlines()) == 8
    outcome = result.outcomes["client"][0]
    assert outcome.model is None
    assert outcome.scores == {}
    assert outcome.notes["overlap"]["DP synthetic alone"]["texts"] == 8
    with pytest.raises(RefusedInput, match=r"no final model|small model"):
        predict_texts(result.path, ["cold"])


def test_a_place_that_cannot_be_written_to_is_corrected_and_nothing_is_paid_again(raw, tmp_path):
    raw["models"].pop("slm")
    raw["seeds"] = [0]
    (tmp_path / "file").write_text("no folder")
    wrong = raw | {"dp_synth": raw["dp_synth"] | {"output": str(tmp_path / "file" / "texts.jsonl")}}
    with pytest.raises(RunFailed):
        run(wrong, tmp_path)
    run(raw, tmp_path)
    assert len((tmp_path / "made" / "texts.jsonl").read_text().splitlines()) == 8
    assert len(Ledger.open("visits").charges()) == 1


def test_one_label_is_refused(raw):
    from privkt.contracts import PublicFacts
    from privkt.privacy import Budget

    method = DPSynth(DPSynth.Config.model_validate(raw["dp_synth"]))
    with pytest.raises(RefusedInput, match="at least two labels"):
        method.plan(PublicFacts("a", 48, ("negative",)), Budget(8.0, 1e-3))

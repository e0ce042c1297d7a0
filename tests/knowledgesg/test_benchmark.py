"""The benchmark of domains: its configs, the files it prepares, its table; planted names on a small random model."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.distilling import load_seeds

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "knowledgesg_domains.py"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(SCRIPT.parent))  # as for any script, its own folder comes first
    spec = importlib.util.spec_from_file_location("knowledgesg_domains", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path):
    for folder, row in (
        ("healthcaremagic", {"instruction": "Answer", "input": "I cough, {}", "output": "Rest, {}"}),
        ("financial_phrasebank", {"text": "Sales rose, {}", "label_text": "positive"}),
        ("medquad", {"input": "What is a cough, {}?"}),
        ("agnews", {"text": "Shares fell, {}", "label_text": "Business"}),
    ):
        place = tmp_path / "data" / folder
        place.mkdir(parents=True)
        for split in ("train", "test"):
            rows = [{key: value.format(i) for key, value in row.items()} for i in range(3500)]
            (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return argparse.Namespace(data=tmp_path / "data", runs=tmp_path / "runs", tiny=True, base="b", professional="p")


@pytest.mark.parametrize("domain", ["medicine", "finance"])
def test_every_arm_runs_with_the_given_models_and_public_seeds(benchmark, options, domain):
    for tiny in (True, False):
        options.tiny = tiny
        config = benchmark.settings(options, domain)
        block = KnowledgeSGConfig.model_validate(config.method_config)
        assert set(block.arms) == set(Arm)
        assert block.writing.count == 4 if tiny else block.writing.count >= 500
        assert config.clients[0].data.size == (24 if tiny else benchmark.SIZES[domain]["rows"]["train"])
        assert {role: model.options["model"] for role, model in config.models.items()} == {
            "base": "b",
            "professional": "p",
        }
        seeds = load_seeds(block.seeds)
        assert len(seeds) == (6 if tiny else benchmark.SEED_ROWS)
        assert seeds[0].pair.question == ("What is a cough, 0?" if domain == "medicine" else "Shares fell, 0")


def test_rows_are_drawn_of_the_whole_file_and_always_the_same(benchmark, options):
    found = [benchmark.prepare(options, "finance")["train"].read_text().splitlines() for _ in range(2)]
    assert found[0] == found[1]
    whole = (options.data / "financial_phrasebank" / "train.jsonl").read_text().splitlines()
    places = [whole.index(line) for line in found[0]]
    assert len(set(places)) == 24
    assert max(places) > 1000
    assert places != sorted(places)


def test_held_out_labels_are_counted_where_there_are_labels(benchmark, options):
    path = options.data / "financial_phrasebank" / "test.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "label_text": "neutral"}) + "\n" for _ in range(24)))
    found = {domain: benchmark.held_out_labels(benchmark.settings(options, domain)) for domain in benchmark.SIZES}
    assert found == {"medicine": {}, "finance": {"negative": 0, "neutral": 24, "positive": 0}}


def test_the_table_has_every_arm_and_metric(benchmark):
    def value(mean):
        return {"mean": mean, "deviation": 0.0, "seeds": 1}

    runs = {"finance": {"scores": {"base model": {"accuracy": value(0.2)}, "KnowledgeSG": {"accuracy": value(0.3)}}}}
    assert benchmark.show(runs).splitlines()[1:] == [
        "| finance | accuracy |",
        "| --- | --- |",
        "| base model | 0.200 (1) |",
        "| KnowledgeSG | 0.300 (1) |",
    ]


def test_names_are_planted_in_a_copy_and_counted(benchmark, options, wide_llama):
    options.base = str(wide_llama)
    config = benchmark.settings(options, "medicine")
    found = benchmark.names_study(options, config, "medicine")
    alone = "the private recipe without clipping and noise"
    assert list(found) == ["without privacy", alone, "privkt"]
    assert [one["guarantee"] == "none" for one in found.values()] == [True, True, False]
    assert found["privkt"]["guarantee"].startswith("epsilon = 8, delta = 1e-5")
    assert found["privkt"]["training"] == found[alone]["training"] != found["without privacy"]["training"]
    lines = benchmark.names_table(found).splitlines()
    assert len(lines) == 5
    assert "(replace-one: epsilon = " in lines[-1]
    for one in found.values():
        assert (one["records"], one["candidates"], one["chance"]) == (8, len(benchmark.NAMES), 1 / len(benchmark.NAMES))
        assert 0 <= one["low"] <= one["rate"] <= one["high"] <= 1
        assert 0 <= one["control_low"] <= one["control_hits"] / 8 <= one["control_high"] <= 1


def test_no_adapter_of_another_study_is_attacked_in_its_place(benchmark, options, wide_llama, monkeypatch):
    from privkt_transformers.backend import TransformersBackend

    weights, ordinary = [], TransformersBackend.with_weights
    monkeypatch.setattr(
        TransformersBackend, "with_weights", lambda self, w: weights.append(w.files) or ordinary(self, w)
    )
    options.base = str(wide_llama)
    config = benchmark.settings(options, "medicine")
    benchmark.names_study(options, config, "medicine")
    benchmark.names_study(options, config, "medicine")
    assert weights[:3] == weights[3:]  # finished ones are not trained again
    rows = Path(config.clients[0].data.path)
    rows.write_text(rows.read_text().replace("cough", "sneeze"))
    benchmark.names_study(options, config, "medicine")
    assert all(new != old for new, old in zip(weights[6:], weights[:3], strict=True))

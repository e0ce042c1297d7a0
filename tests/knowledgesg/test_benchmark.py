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
    ):
        place = tmp_path / "data" / folder
        place.mkdir(parents=True)
        for split in ("train", "test"):
            rows = [{key: value.format(i) for key, value in row.items()} for i in range(1500)]
            (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return argparse.Namespace(data=tmp_path / "data", runs=tmp_path / "runs", tiny=True, base="b", professional="p")


@pytest.mark.parametrize("domain", ["medicine", "finance"])
def test_every_arm_runs_with_the_given_models_and_public_seeds(benchmark, options, domain):
    for tiny in (True, False):
        options.tiny = tiny
        config = benchmark.settings(options, domain)
        block = KnowledgeSGConfig.model_validate(config.method_config)
        assert set(block.arms) == set(Arm)
        assert block.writing.count == (4 if tiny else 500)
        assert config.clients[0].data.size == (24 if tiny else benchmark.SIZES[domain]["rows"]["train"])
        assert {role: model.options["model"] for role, model in config.models.items()} == {
            "base": "b",
            "professional": "p",
        }
        assert len(load_seeds(block.seeds)) >= 6


def test_the_table_has_every_arm_and_metric(benchmark):
    def value(mean):
        return {"mean": mean, "deviation": 0.0, "seeds": 1}

    runs = {"finance": {"scores": {"base model": {"accuracy": value(0.2)}, "KnowledgeSG": {"accuracy": value(0.3)}}}}
    assert benchmark.show(runs).splitlines()[1:] == [
        "| finance | accuracy |",
        "| --- | --- |",
        "| base model | 0.200 ± 0.000 (1) |",
        "| KnowledgeSG | 0.300 ± 0.000 (1) |",
    ]


def test_names_are_planted_in_a_copy_and_counted(benchmark, options, wide_llama):
    options.base = str(wide_llama)
    config = benchmark.settings(options, "medicine")
    found = benchmark.names_study(options, config, "medicine")
    assert set(found) == {"without privacy", "privkt"}
    for one in found.values():
        assert (one["records"], one["candidates"], one["chance"]) == (8, len(benchmark.NAMES), 1 / len(benchmark.NAMES))
        assert 0 <= one["low"] <= one["rate"] <= one["high"] <= 1
        assert one["control_hits"] is not None

"""The example is a sound plan, and the benchmark prepares what it says."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from privkt_post.arms import Arm
from privkt_post.config import POSTConfig
from privkt_post.method import POST

from privkt.config import load_config
from privkt.contracts import PublicFacts
from privkt.privacy import Budget, default_delta

ROOT = Path(__file__).parents[2]


def test_the_example_is_a_sound_plan():
    config = load_config(ROOT / "examples" / "post-sst2.yaml")
    settings = POSTConfig.model_validate(config.method_config)
    (client,) = config.clients
    budget = Budget(config.budget.epsilon, default_delta(client.data.size))
    plan = POST(settings).plan(PublicFacts(client.name, client.data.size, client.data.labels), budget)
    assert plan.warnings == ()
    assert plan.trainings[0].steps >= 16
    assert plan.trainings[0].noise_per_coordinate < 0.01
    assert set(config.models) <= {*POST.client_roles, *POST.server_roles}
    assert Path(settings.distillation.corpus.path).is_absolute()


@pytest.fixture(scope="module")
def benchmark():
    script = ROOT / "benchmarks" / "post_tasks.py"
    sys.path.insert(0, str(script.parent))  # as for any script, its own folder comes first
    spec = importlib.util.spec_from_file_location("post_tasks", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path):
    for name in ("sst2", "agnews", "uci_sentiment", "tweet_eval_sentiment", "financial_phrasebank", "trec"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            lines = [
                {"text": f"{name} {split} {i}", "label": 0, "label_text": "x", "domain": ("imdb", "yelp")[i % 2]}
                for i in range(2500)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return argparse.Namespace(
        data=tmp_path / "data", runs=tmp_path / "runs", tiny=False, target="t", first=14, dtype="bfloat16"
    )


def test_every_run_is_a_sound_config_with_all_columns(benchmark, options):
    for task in benchmark.TASKS:
        for epsilon in benchmark.EPSILONS:
            config = benchmark.settings(options, task, epsilon, 1)
            settings = POSTConfig.model_validate(config.method_config)
            assert set(settings.arms) == set(Arm) - {Arm.QUERIES}
            assert settings.tuning.private is (epsilon != "none")
            assert config.seeds == (1,)
            kept = settings.distillation
            assert (kept.layers, kept.first, kept.last) == (None, 14, 1)
            assert settings.transfer.match == "words"
            assert {config.models[role].options["dtype"] for role in ("target", "local_target")} == {"bfloat16"}
            assert kept.precision == "bfloat16"
            assert settings.task.calibrate
            # every seed tunes anew: one ledger holds them all
            assert config.budget.cap_epsilon == 8 * len(benchmark.SEEDS)
            (client,) = config.clients
            assert client.data.name == f"{task}-1000"
            rows = Path(client.data.path).read_text().splitlines()
            assert len(rows) == client.data.size == 1000
            public = Path(settings.transfer.public[0].path).read_text().splitlines()
            assert set(json.loads(public[0])) == {"text"}
            counts = {}
            for line in public:
                source, _, number = json.loads(line)["text"].split()
                domain = ":imdb" if source == "uci_sentiment" and int(number) % 2 == 0 else ""
                counts[source + domain] = counts.get(source + domain, 0) + 1
            assert counts == benchmark.TASKS[task]["public"]
            corpus = Path(settings.distillation.corpus.path).read_text().splitlines()
            assert len(corpus) == sum(benchmark.CORPUS.values())


def test_the_table_has_arms_as_columns(benchmark):
    def run(seed, accuracy):
        return {"seed": seed, "scores": {"POST": {"accuracy": accuracy}, "cPT": {"accuracy": 0.5}}}

    values = benchmark.table({"sst2": {"8": [run(0, 0.6), run(1, 0.8)]}})
    lines = benchmark.show(values).splitlines()
    assert lines[0] == "| task | epsilon | POST | cPT |"
    assert lines[2] == "| sst2 | 8 | 0.700 ± 0.141 (2) | 0.500 ± 0.000 (2) |"


def test_costs_stand_beside_those_of_the_large_model(benchmark):
    run = {
        "student": {"seconds": 10.0},
        "phases": {"tuning the small model's prompt": 20.0, "tuning a prompt on the large model": 400.0},
        "transfer": {"seconds": 30.0},
    }
    assert benchmark.show_costs({"sst2": {"8": [run, run]}}).splitlines()[-1] == "| sst2 | 8 | 10 | 20 | 30 | 400 |"

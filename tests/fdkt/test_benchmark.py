"""The AG News benchmark: which arms run for which epsilon, the files it prepares, the table."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fdkt_agnews.py"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(SCRIPT.parent))  # as for any script, its own folder comes first
    spec = importlib.util.spec_from_file_location("fdkt_agnews", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        lines = [{"text": f"{split} {i}", "label": i % 4, "label_text": "World"} for i in range(1200)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    models = {"generator": "g", "llm": "l", "slm": "s"}
    return argparse.Namespace(data=data, runs=tmp_path / "runs", tiny=False, **models)


def test_every_arm_runs_once_and_those_without_epsilon_with_the_first(benchmark, options):
    first, second = (benchmark.settings(options, epsilon) for epsilon in benchmark.EPSILONS)
    arms = [set(FDKTConfig.model_validate(config.method_config).arms) for config in (first, second)]
    assert arms[0] == set(Arm)
    assert arms[0] - arms[1] == {Arm(name) for name in benchmark.WITHOUT_EPSILON}
    assert first.seeds == second.seeds == benchmark.SEEDS
    assert (first.budget.epsilon, second.budget.epsilon) == (8, 3)
    assert first.clients[0].data.name == second.clients[0].data.name
    # Both trainings are charged to one ledger, which must have room for their sum.
    assert first.budget.cap_epsilon == second.budget.cap_epsilon == 11
    generator = FDKTConfig.model_validate(first.method_config).generator
    assert generator.batch_size >= 256
    assert generator.epochs >= 8
    assert first.models["llm"].options == first.models["local_llm"].options == {"model": "l"}


def test_the_first_rows_are_taken_with_two_columns(benchmark, options):
    config = benchmark.settings(options, 8.0)
    rows = [json.loads(line) for line in Path(config.clients[0].data.path).read_text().splitlines()]
    assert len(rows) == config.clients[0].data.size == 1000
    assert rows[7] == {"text": "train 7", "label_text": "World"}
    assert len(Path(config.evaluation.data.path).read_text().splitlines()) == 500


def test_too_few_rows_are_refused(benchmark, options):
    with pytest.raises(SystemExit, match=r"test.jsonl: must have at least 2000 rows, got 1200"):
        benchmark.prepare(options.data, options.runs, {"train": 10, "test": 2000})


def test_the_table_shows_arms_without_epsilon_in_every_column(benchmark):
    def score(mean):
        return {m: {"mean": mean, "deviation": 0.01, "seeds": 3} for m in ("accuracy", "macro_f1")}

    lines = benchmark.show({"8": {"private": score(0.5), "FDKT": score(0.7)}, "3": {"FDKT": score(0.6)}}).splitlines()
    assert lines[0] == (
        "| small model trained on | accuracy, epsilon 8 | macro_f1, epsilon 8 | accuracy, epsilon 3 | "
        "macro_f1, epsilon 3 |"
    )
    assert lines[2] == "| private |" + " 0.500 ± 0.010 (3) |" * 4
    assert lines[3] == "| FDKT |" + " 0.700 ± 0.010 (3) |" * 2 + " 0.600 ± 0.010 (3) |" * 2

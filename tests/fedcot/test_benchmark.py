"""The question benchmark: which arms run for which epsilon, what a row pays, the files it prepares, the table."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from privkt_fedcot.arms import Arm
from privkt_fedcot.config import FedCoTConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fedcot_questions.py"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(SCRIPT.parent))  # as for any script, its own folder comes first
    spec = importlib.util.spec_from_file_location("fedcot_questions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path):
    for task, places in (("commonsense_qa", 5), ("arc_easy", 4)):
        folder = tmp_path / "data" / task
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            rows = [
                {"id": f"{i}", "question": f"{split} {i}", "choices": list("abcdef")[: places + (i == 3)],
                 "answer_index": i % places, "rationale": "never used"}
                for i in range(520)
            ]  # fmt: skip
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return argparse.Namespace(data=tmp_path / "data", runs=tmp_path / "runs", tiny=False, llm="l", slm="s")


@pytest.mark.parametrize("task", ["commonsense_qa", "arc_easy"])
def test_every_baseline_runs_once_and_fedcot_with_every_epsilon(benchmark, options, task):
    configs = [benchmark.settings(options, task, epsilon) for epsilon in benchmark.EPSILONS]
    arms = [set(FedCoTConfig.model_validate(config.method_config).arms) for config in configs]
    assert arms == [set(Arm), {Arm.FEDCOT}]
    assert [config.seeds for config in configs] == [benchmark.SEEDS, (0,)]
    assert len({config.clients[0].data.name for config in configs}) == 1
    for config, epsilon in zip(configs, benchmark.EPSILONS, strict=True):
        assert config.budget.epsilon == (24 + 5 * 3) * epsilon
        assert config.budget.cap_epsilon == 39 * sum(benchmark.EPSILONS)
        assert config.method_config["perturbation"]["epsilon"] == epsilon
        assert config.models["llm"].options == {"model": "l"}


def test_the_first_rows_with_few_enough_choices_are_taken_without_rationales(benchmark, options):
    config = benchmark.settings(options, "commonsense_qa", 10.0)
    rows = [json.loads(line) for line in Path(config.clients[0].data.path).read_text().splitlines()]
    assert len(rows) == config.clients[0].data.size == 500
    assert rows[3] == {"question": "train 4", "choices": list("abcde"), "answer_index": 4}
    with pytest.raises(SystemExit, match=r"train.jsonl: must have at least 600 rows, got 519"):
        benchmark.prepare(options.data / "commonsense_qa", options.runs, 600, 5)


def test_the_table_has_fedcot_once_for_each_epsilon(benchmark):
    def value(mean):
        return {"accuracy": {"mean": mean, "deviation": 0.0, "seeds": 1}}

    first = {"scores": {"labels alone": value(0.2), "FedCoT": value(0.3)}}
    runs = {"10": first, "3": {"scores": {"FedCoT": value(0.25)}}}
    lines = benchmark.show({"arc_easy": runs}).splitlines()
    assert lines[2:] == [
        "| labels alone | 0.200 (1) |",
        "| FedCoT, epsilon 10 a token | 0.300 (1) |",
        "| FedCoT, epsilon 3 a token | 0.250 (1) |",
    ]

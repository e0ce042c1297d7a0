"""FDKT on AG News with every baseline: one generator an epsilon, three seeds of everything after it.

python benchmarks/fdkt_agnews.py --data FOLDER [--llm FOLDER] [--runs FOLDER] [--epsilon 8] [--seeds 0]

FOLDER (or PRIVKT_AGNEWS) holds train.jsonl and test.jsonl, one {"text": ..., "label_text": ...} a line; the first rows
that examples/fdkt-agnews.yaml declares are taken. Everything else is that example's. The same command goes on where an
interrupted one stopped, and pieces (`--epsilon 8 --seeds 0`, later `--seeds 0 1 2`) add up in the folder of --runs.
Arms that no epsilon touches (private data alone, no demonstrations, no noise, raw demonstrations) are run with the
first epsilon only; their figures stand in every column of the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring.studies import cell, go_on, machine, merged

from privkt.cli.running import comparison
from privkt.config import RunConfig, load_config, parse_config
from privkt.evaluation.report.build import build_report
from privkt.runtime.run_directory import RunDirectory

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "fdkt-agnews.yaml"
EPSILONS = (8.0, 3.0)
SEEDS = (0, 1, 2)
TEST_ROWS = 500
# A name in the table stands for the whole of an arm that does not depend on the generator.
WITHOUT_EPSILON = ("private", "zero-shot", "no-noise", "raw-demonstrations")
TINY = {
    "samples_per_label": 3,
    "max_tokens": 24,
    "min_words": 3,
    "prompts": 4,
    "llm": {"max_tokens": 24},
    "generator": {"batch_size": 24, "epochs": 1, "max_length": 24},
    "slm": {"epochs": 2, "weights": [1.0]},
}


def prepare(source: Path, target: Path, rows: Mapping[str, int]) -> dict[str, Path]:
    """The first rows of each split, with the two columns that count."""
    target.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, count in rows.items():
        with (source / f"{split}.jsonl").open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in itertools.islice(file, count)]
        if len(lines) < count:
            sys.exit(f"{split}.jsonl: must have at least {count} rows, got {len(lines)}; give the whole data set")
        found[split] = target / f"{split}-{count}.jsonl"
        kept = "".join(json.dumps({k: row[k] for k in ("text", "label_text")}) + "\n" for row in lines)
        found[split].write_text(kept, encoding="utf-8")
    return found


def settings(options: argparse.Namespace, epsilon: float) -> RunConfig:
    """The example's config for one epsilon, with the given models and files and every baseline that belongs to it."""
    raw = load_config(EXAMPLE).model_dump(mode="json")
    raw["fdkt"] = merged(raw.pop("method_config"), TINY if options.tiny else {})
    client, models = raw["clients"][0], raw["models"]
    size = 48 if options.tiny else client["data"]["size"]
    test = 24 if options.tiny else TEST_ROWS
    files = prepare(options.data, options.runs / "data", {"train": size, "test": test})
    client["data"] |= {"size": size, "path": str(files["train"].absolute())}
    raw["evaluation"]["data"]["path"] = str(files["test"].absolute())
    # One data set, charged once for each epsilon: its ledger ends at their sum.
    raw["budget"] |= {"epsilon": epsilon, "cap_epsilon": sum(EPSILONS), "cap_delta": 2.1e-5}
    for role, model in (("generator", options.generator), ("llm", options.llm), ("slm", options.slm)):
        if model:
            models[role]["model"] = model
    models["embedder"] = dict(models["slm"])
    models["local_llm"] = dict(models["llm"])
    config = comparison(parse_config({**raw, "seeds": list(SEEDS)}))
    if epsilon == EPSILONS[0]:
        return config
    left = [arm for arm in config.method_config["baselines"] if arm not in WITHOUT_EPSILON]
    return config.model_copy(update={"method_config": {**config.method_config, "baselines": left}})


def gathered(reports: Mapping[float, Mapping[str, Any]]) -> dict[str, Any]:
    """Trainings, times, counts and the table out of the reports of the runs."""
    clients = {epsilon: next(iter(report["clients"].values())) for epsilon, report in reports.items()}
    return {
        "runs": {
            f"{epsilon:g}": {
                "finished": reports[epsilon]["finished"],
                "seeds": client["seeds"],
                "trainings": client["trainings"],
                "seconds": reports[epsilon]["seconds"],
                "crossed": [{k: row[k] for k in ("scope", "rows", "bytes")} for row in reports[epsilon]["crossed"]],
                "server": reports[epsilon]["server"],
                "arms": {seed: notes["arms"] for seed, notes in client["notes"].items()},
                "overlap": {seed: notes["overlap"] for seed, notes in client["notes"].items()},
            }
            for epsilon, client in clients.items()
        },
        "spent": next(iter(clients.values()))["ledger"]["spent"],
        "table": {f"{epsilon:g}": client["scores"] for epsilon, client in clients.items()},
    }


def show(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as Markdown: accuracy and macro F1, mean and deviation; a dash where an arm has no figure."""
    arms = list(dict.fromkeys(arm for scores in table.values() for arm in scores))
    columns = [(epsilon, metric) for epsilon in table for metric in ("accuracy", "macro_f1")]
    lines = ["| small model trained on | " + " | ".join(f"{m}, epsilon {e}" for e, m in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    first = next(iter(table.values()))
    for arm in arms:
        cells = []
        for epsilon, metric in columns:
            value = table[epsilon].get(arm, first.get(arm, {})).get(metric)
            cells.append(cell(value))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PRIVKT_AGNEWS")
    parser.add_argument("--data", type=Path, default=default, required=default is None, help="train.jsonl, test.jsonl")
    parser.add_argument("--generator", help="folder or name; the example's where not given")
    parser.add_argument("--llm", help="folder or name of the large model, in process")
    parser.add_argument("--slm", help="folder or name of the small model, which also embeds")
    parser.add_argument("--epsilon", type=float, nargs="+", choices=EPSILONS, default=EPSILONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="0, or 0 1, or all: they are run in order")
    parser.add_argument("--runs", type=Path, default=Path("runs/fdkt-agnews"), help="run directories are kept here")
    parser.add_argument("--tiny", action="store_true", help="few rows and texts: that it runs, not how well")
    parser.add_argument("--machine", default="this-machine", help="names the results file")
    parser.add_argument("--out", type=Path, help="the results file itself")
    options = parser.parse_args()
    if tuple(options.seeds) != SEEDS[: len(options.seeds)]:
        parser.error(f"--seeds: must begin at {SEEDS[0]} and leave none out, since a run goes through them in order")
    os.environ.setdefault("PRIVKT_STATE", str((options.runs / "state").absolute()))
    folders = {epsilon: options.runs / f"epsilon-{epsilon:g}" for epsilon in EPSILONS}
    configs = {epsilon: settings(options, epsilon) for epsilon in EPSILONS}
    for epsilon in sorted(options.epsilon, reverse=True):
        print(f"epsilon {epsilon:g}", flush=True)
        go_on(configs[epsilon], folders[epsilon], options.seeds, "learn")
    reports = {epsilon: build_report(folder) for epsilon, folder in folders.items() if RunDirectory.is_run(folder)}
    config = configs[EPSILONS[0]]
    result = {
        "machine": machine(),
        "models": {role: Path(model.options["model"]).name for role, model in config.models.items()},
        "data": {"train": config.clients[0].data.size, "test": 24 if options.tiny else TEST_ROWS},
        "settings": config.method_config,
        **gathered(reports),
    }
    place = options.runs / "tiny.json" if options.tiny else HERE / "results" / f"fdkt_agnews-{options.machine}.json"
    out = options.out or place
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show(result["table"]))
    for epsilon, report in reports.items():
        print(f"epsilon {epsilon:g}: {sum(report['seconds'].values()) / 60:.1f} minutes in steps so far")


if __name__ == "__main__":
    main()

"""FedCoT on CommonsenseQA and ARC-Easy beside its baselines, at several epsilons a token.

python benchmarks/fedcot_questions.py --data FOLDER [--task commonsense_qa] [--llm FOLDER] [--slm FOLDER] [--epsilon 10]

FOLDER holds commonsense_qa/ and arc_easy/, each with train.jsonl and test.jsonl, a line a question: {"question": ...,
"choices": [...], "answer_index": 0}; the first 500 rows of each split are taken. Everything else is that of
examples/fedcot-commonsenseqa.yaml. The first epsilon runs with every baseline and three seeds, the others with FedCoT
alone and one seed: no baseline depends on epsilon. The same command goes on where an interrupted one stopped, and what
pieces of it found adds up in one results file.
"""

from __future__ import annotations

import argparse
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
EXAMPLE = HERE.parent / "examples" / "fedcot-commonsenseqa.yaml"
EPSILONS = (10.0, 3.0)
SEEDS = (0, 1, 2)
TASKS = {"commonsense_qa": "ABCDE", "arc_easy": "ABCDE"}
ROWS = 500
TINY_ROWS = 12
TINY = {"rationale": {"max_tokens": 16}, "decoder": {"max_tokens": 16}, "slm": {"epochs": 1}}
COLUMNS = ("question", "choices", "answer_index")


def prepare(source: Path, target: Path, count: int, places: int) -> dict[str, Path]:
    """The first `count` rows of each split that have at most `places` choices, with the columns that count."""
    target.mkdir(parents=True, exist_ok=True)
    found = {}
    for split in ("train", "test"):
        with (source / f"{split}.jsonl").open(encoding="utf-8") as file:
            rows = [row for row in map(json.loads, file) if len(row["choices"]) <= places][:count]
        if len(rows) < count:
            sys.exit(f"{split}.jsonl: must have at least {count} rows, got {len(rows)}; give the whole data set")
        found[split] = target / f"{split}-{count}.jsonl"
        text = "".join(json.dumps({name: row[name] for name in COLUMNS}) + "\n" for row in rows)
        found[split].write_text(text, encoding="utf-8")
    return found


def settings(options: argparse.Namespace, task: str, epsilon: float) -> RunConfig:
    """The example's config for one task and epsilon a token, with the given models."""
    raw = load_config(EXAMPLE).model_dump(mode="json")
    block = merged(raw.pop("method_config"), TINY if options.tiny else {})
    block["perturbation"]["epsilon"] = epsilon
    raw["fedcot"] = block
    places, count = list(TASKS[task]), TINY_ROWS if options.tiny else ROWS
    files = prepare(options.data / task, options.runs / task / "data", count, len(places))
    data = {"name": f"{task}-{count}", "size": count, "path": str(files["train"].absolute()), "labels": places}
    raw["clients"][0]["data"] |= data
    raw["evaluation"]["data"]["path"] = str(files["test"].absolute())
    lengths = block["perturbation"]["tokens"]
    tokens = lengths["question"] + len(places) * lengths["choice"]
    # One data set, charged once for each epsilon: its ledger ends at their sum.
    raw["budget"] |= {"epsilon": epsilon * tokens, "cap_epsilon": sum(EPSILONS) * tokens, "cap_delta": 1e-4}
    models = raw["models"]
    for role, model in (("llm", options.llm), ("slm", options.slm)):
        if model:
            models[role]["model"] = model
    if options.slm:
        block["perturbation"]["vocabulary"] = {"model": options.slm}
    first = epsilon == EPSILONS[0]
    if first:
        models["local_llm"] = dict(models["llm"])
        return comparison(parse_config({**raw, "seeds": list(SEEDS)}))
    block["baselines"] = []
    return parse_config({**raw, "seeds": [SEEDS[0]]})


def gathered(report: Mapping[str, Any]) -> dict[str, Any]:
    """What one run found: scores, price, what was written and kept, seconds."""
    client = next(iter(report["clients"].values()))
    return {
        "finished": report["finished"],
        "machine": machine(),
        "scores": client["scores"],
        "perturbations": client.get("perturbations"),
        "ledger": client["ledger"]["spent"],
        "crossed": [{k: row[k] for k in ("scope", "rows", "bytes")} for row in report["crossed"]],
        "seconds": report["seconds"],
        "arms": {seed: notes["arms"] for seed, notes in client["notes"].items()},
    }


def show(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as Markdown: accuracy a task and arm; FedCoT once for each epsilon."""
    names = list(tasks)
    found: dict[str, dict[str, str]] = {}
    for task, runs in tasks.items():
        for epsilon, run in runs.items():
            for arm, scores in run["scores"].items():
                name = f"{arm}, epsilon {epsilon} a token" if arm == "FedCoT" else arm
                found.setdefault(name, {})[task] = cell(scores["accuracy"])
    lines = ["| small model trained on | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    lines += [f"| {arm} | " + " | ".join(row.get(task, "-") for task in names) + " |" for arm, row in found.items()]
    return "\n".join(lines)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds a folder a task")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--llm", help="folder or name of the large model, in process; the example's where not given")
    parser.add_argument("--slm", help="folder or name of the small model, whose vocabulary is perturbed over")
    parser.add_argument("--epsilon", type=float, nargs="+", choices=EPSILONS, default=list(EPSILONS), help="of a token")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="0, or 0 1, or all: run in order")
    parser.add_argument("--runs", type=Path, default=Path("runs/fedcot-questions"), help="run directories lie here")
    parser.add_argument("--tiny", action="store_true", help="few rows and tokens: that it runs, not how well")
    parser.add_argument("--machine", default="this-machine", help="names the results file")
    parser.add_argument("--out", type=Path, help="the results file itself")
    options = parser.parse_args()
    if tuple(options.seeds) != SEEDS[: len(options.seeds)]:
        parser.error(f"--seeds: must begin at {SEEDS[0]} and leave none out, since a run goes through them in order")
    os.environ.setdefault("PRIVKT_STATE", str((options.runs / "state").absolute()))
    place = (
        options.runs / "tiny.json" if options.tiny else HERE / "results" / f"fedcot_questions-{options.machine}.json"
    )
    out = options.out or place
    known = json.loads(out.read_text())["tasks"] if out.exists() else {}
    for task in options.task:
        for epsilon in sorted(options.epsilon, key=EPSILONS.index):
            print(f"{task}, epsilon {epsilon:g} a token", flush=True)
            config, folder = settings(options, task, epsilon), options.runs / task / f"epsilon-{epsilon:g}"
            go_on(config, folder, config.seeds[: len(options.seeds)], "learn")
            if RunDirectory.is_run(folder):
                known.setdefault(task, {})[f"{epsilon:g}"] = gathered(build_report(folder))
            result = {
                "machine": machine(),
                "models": {role: Path(model.options["model"]).name for role, model in config.models.items()},
                "rows": {"train": config.clients[0].data.size, "test": TINY_ROWS if options.tiny else ROWS},
                "settings": {**config.method_config, "perturbation": {**config.method_config["perturbation"]}},
                "tasks": known,
            }
            result["settings"]["perturbation"].pop("vocabulary")  # a folder of this machine
            out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show(known))


if __name__ == "__main__":
    main()

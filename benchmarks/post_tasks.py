"""POST on SST-2 and AG News: five columns, with and without privacy, over seeds; a run directory for each.

python benchmarks/post_tasks.py --data FOLDER [--target FOLDER] [--runs FOLDER] [--task sst2] [--epsilon 8] [--seeds 0]

FOLDER (or PRIVKT_POST_DATA) holds a folder for each data set named in TASKS, with train.jsonl and test.jsonl, one
{"text": ..., "label_text": ...} a line; the first rows are taken. Everything else is that of examples/post-sst2.yaml,
but for what TASKS says. Every seed is a tuning of its own, and so a spend of its own: the ledger's cap is their sum.
The same command goes on where an interrupted one stopped, and pieces add up in the folder of --runs. A run whose
epsilon is `none` tunes without noise, which promises nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.studies import go_on, machine, merged, peaks

from privkt.config import RunConfig, load_config, parse_config
from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.summary import over_seeds
from privkt.runtime.run_directory import RunDirectory

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "post-sst2.yaml"
SEEDS = (0, 1)
EPSILONS = ("8", "none")
TRAIN_ROWS, TEST_ROWS, PUBLIC_ROWS = 1000, 500, 2000
# task: the private set, its labels, the public set (which shares no origin with it), and what differs from the example.
TASKS: dict[str, dict[str, Any]] = {
    "sst2": {"private": "sst2", "labels": ["negative", "positive"], "public": "uci_sentiment", "post": {}},
    "agnews": {
        "private": "agnews",
        "labels": ["World", "Sports", "Business", "Sci/Tech"],
        "public": "tweet_eval_sentiment",
        "post": {
            "task": {"name": "agnews", "max_length": 80},
            "prompt": {"text": "Read the news and say what it is about: the world, sports, business or science."},
        },
    },
}
ARMS = ("zero-shot", "student-prompt", "direct", "inference-time", "target-prompt")
TINY = {
    "task": {"max_length": 24},
    "prompt": {"tokens": 4},
    "distillation": {"epochs": 0.05, "length": 32, "batch_size": 4, "top_k": 16},
    "tuning": {"batch_size": 16, "epochs": 1},
    "transfer": {"samples": 8, "steps": 3, "batch_size": 4},
}


def prepare(source: Path, target: Path, rows: Mapping[str, int], columns: Sequence[str]) -> dict[str, Path]:
    """The first rows of splits, with the columns that count; fewer rows than asked for are refused."""
    target.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, count in rows.items():
        with (source / f"{split}.jsonl").open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in itertools.islice(file, count)]
        if len(lines) < count:
            sys.exit(f"{source.name}/{split}.jsonl: must have at least {count} rows, got {len(lines)}; give it whole")
        found[split] = target / f"{source.name}-{split}-{count}.jsonl"
        found[split].write_text("".join(json.dumps({k: row[k] for k in columns}) + "\n" for row in lines))
    return found


def settings(options: argparse.Namespace, task: str, epsilon: str, seed: int) -> RunConfig:
    """The example's config for one task, epsilon and seed, with every arm."""
    about = TASKS[task]
    raw = load_config(EXAMPLE).model_dump(mode="json")
    size, test, public = (48, 24, 64) if options.tiny else (TRAIN_ROWS, TEST_ROWS, PUBLIC_ROWS)
    own = prepare(
        options.data / about["private"], options.runs / "data", {"train": size, "test": test}, ("text", "label_text")
    )
    other = prepare(options.data / about["public"], options.runs / "data", {"train": public}, ("text",))
    block = merged(merged(raw.pop("method_config"), about["post"]), TINY if options.tiny else {})
    corpus = {"source": "json", "path": str(other["train"].absolute()), "text": "text", "public": True}
    block["distillation"] |= {"corpus": corpus, "store": str((options.runs / "students").absolute())}
    block["transfer"]["public"] = [corpus]
    block["tuning"]["private"] = epsilon != "none"
    block["baselines"] = list(ARMS)
    (client,) = raw["clients"]
    client["data"] |= {
        "name": f"{task}-{size}", "size": size, "path": str(own["train"].absolute()), "labels": about["labels"],
    }  # fmt: skip
    raw["evaluation"]["data"]["path"] = str(own["test"].absolute())
    spends = [float(e) for e in EPSILONS if e != "none"]
    raw["budget"] = {
        "epsilon": spends[0] if epsilon == "none" else float(epsilon),
        "delta": 1e-5 if size >= 1000 else 1e-3,
        "cap_epsilon": sum(spends) * len(SEEDS),
        "cap_delta": 0.9 if options.tiny else 1e-3,
    }
    if options.target:
        for role in ("target", "local_target"):
            raw["models"][role]["model"] = options.target
    return parse_config({**raw, "post": block, "seeds": [seed]})


def gathered(folder: Path) -> dict[str, Any]:
    """Scores, seconds, what was spent and what was made, out of one run's report."""
    report = build_report(folder)
    (client,) = report["clients"].values()
    (notes,) = client["notes"].values()
    (server,) = report["server"].values()
    (moved,) = server["transfers"].values()
    seed = next(iter(client["notes"]))
    return {
        "seed": int(seed),
        "scores": {arm: {m: v["mean"] for m, v in values.items()} for arm, values in client["scores"].items()},
        "trainings": [
            {k: t[k] for k in ("noise_multiplier", "sampling_rate", "steps", "epsilon")} for t in client["trainings"]
        ],
        "seconds": report["seconds"],
        "phases": notes["seconds"],
        "peaks_mib": peaks(folder),
        "student": {k: v for k, v in server["student"].items() if k not in ("name", "sha256", "from")},
        "transfer": moved,
        "crossed": [{k: row[k] for k in ("message", "rows", "bytes")} for row in report["crossed"]],
        "not_measured": notes["why"],
    }


def table(runs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, Any]:
    """{task: {epsilon: {arm: {mean, deviation, seeds}}}} of the accuracy."""
    found: dict[str, Any] = {}
    for task, by_epsilon in runs.items():
        for epsilon, seeds in by_epsilon.items():
            summary = over_seeds(run["scores"] for run in seeds)
            found.setdefault(task, {})[epsilon] = {
                arm: {"mean": s["accuracy"].mean, "deviation": s["accuracy"].deviation, "seeds": s["accuracy"].seeds}
                for arm, s in summary.items()
            }
    return found


def show(values: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The table as Markdown, arms as columns."""
    arms = list(dict.fromkeys(arm for by in values.values() for row in by.values() for arm in row))
    lines = ["| task | epsilon | " + " | ".join(arms) + " |", "| --- | --- |" + " --- |" * len(arms)]
    for task, by_epsilon in values.items():
        for epsilon, row in by_epsilon.items():
            cells = [
                f"{row[arm]['mean']:.3f} ± {row[arm]['deviation']:.3f} ({row[arm]['seeds']})" if arm in row else "-"
                for arm in arms
            ]
            lines.append(f"| {task} | {epsilon} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def show_costs(runs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Seconds of each phase as Markdown, means over seeds, beside those of tuning on the large model itself."""
    lines = [
        "| task | epsilon | distillation, once | tuning on the small model | transfer | tuning on the large model |",
        "| --- |" + " --- |" * 5,
    ]
    for task, by_epsilon in runs.items():
        for epsilon, seeds in by_epsilon.items():
            phases = [
                [run["student"]["seconds"] for run in seeds],
                [run["phases"]["tuning the small model's prompt"] for run in seeds],
                [run["transfer"]["seconds"] for run in seeds],
                [run["phases"]["tuning a prompt on the large model"] for run in seeds],
            ]
            cells = [f"{sum(found) / len(found):.0f}" for found in phases]
            lines.append(f"| {task} | {epsilon} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def about_machine() -> dict[str, Any]:
    """The machine and its accelerator."""
    import torch

    return machine() | {"gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PRIVKT_POST_DATA")
    parser.add_argument("--data", type=Path, default=default, required=default is None, help="a folder of data sets")
    parser.add_argument("--target", help="folder or name of the large model; the example's where not given")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--epsilon", nargs="+", choices=EPSILONS, default=list(EPSILONS))
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--runs", type=Path, default=Path("runs/post-tasks"), help="run directories are kept here")
    parser.add_argument("--tiny", action="store_true", help="few rows and steps: that it runs, not how well")
    parser.add_argument("--machine", default="this-machine", help="names the results file")
    parser.add_argument("--out", type=Path, help="the results file itself")
    options = parser.parse_args()
    os.environ.setdefault("PRIVKT_STATE", str((options.runs / "state").absolute()))
    for task, epsilon, seed in itertools.product(options.task, options.epsilon, options.seeds):
        print(f"{task}, epsilon {epsilon}, seed {seed}", flush=True)
        folder = options.runs / f"{task}-{epsilon}-{seed}"
        go_on(settings(options, task, epsilon, seed), folder, (seed,), "evaluate")
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task, epsilon, seed in itertools.product(TASKS, EPSILONS, SEEDS):
        folder = options.runs / f"{task}-{epsilon}-{seed}"
        if RunDirectory.is_run(folder) and build_report(folder)["finished"]:
            runs.setdefault(task, {}).setdefault(epsilon, []).append(gathered(folder))
    result = {
        "machine": about_machine(),
        "target": Path(options.target or "smollm2-135m-instruct").name,
        "data": {task: {k: TASKS[task][k] for k in ("private", "public")} for task in runs},
        "runs": runs,
        "table": table(runs),
    }
    place = options.runs / "tiny.json" if options.tiny else HERE / "results" / f"post_tasks-{options.machine}.json"
    (options.out or place).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show(result["table"]))
    print(show_costs(runs))


if __name__ == "__main__":
    main()

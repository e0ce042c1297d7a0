"""POST on SST-2 and AG News: five columns, with and without privacy, over seeds; a run directory for each.

python benchmarks/post_tasks.py --data FOLDER [--target FOLDER] [--runs FOLDER] [--task sst2] [--epsilon 8] [--seeds 0]

FOLDER (or PRIVKT_POST_DATA) holds a folder for each data set named in TASKS and CORPUS, with train.jsonl and
test.jsonl, one {"text": ..., "label_text": ...} a line; the first rows are taken. Everything else is that of
examples/post-sst2.yaml, but for what SIZES, COURSES and TASKS say: one processor core has to get through it. Every seed
is a tuning of its own, and so a spend of its own: the ledger's cap is their sum. The same command goes on where an
interrupted one stopped, and what pieces of it found adds up in one results file. A run whose epsilon is `none` tunes
without noise, which promises nothing.
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

from measuring.studies import cell, go_on, machine, merged, peaks

from privkt.config import RunConfig, load_config, parse_config
from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.summary import over_seeds

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "post-sst2.yaml"
SEEDS = (0, 1)
EPSILONS = ("8", "none")
TRAIN_ROWS, TEST_ROWS = 1000, 400
# What the small model learns from, the same for every task: so many first rows of each set.
CORPUS = {"uci_sentiment": 1000, "tweet_eval_sentiment": 1200, "financial_phrasebank": 600, "trec": 800}
SIZES: dict[str, Any] = {
    "task": {"max_length": 32, "calibrate": True},
    "prompt": {"tokens": 10},
    # of SmolLM2-135M's thirty layers the eleventh to fifteenth bring what it makes of a text to the place that is read
    "distillation": {
        "layers": None, "last": 1, "epochs": 1, "batch_size": 8, "length": 64,
    },
    "transfer": {
        "samples": 128, "steps": 150, "batch_size": 8, "learning_rate": 1.0e-2, "match": "words", "alpha": 1.0,
    },
}  # fmt: skip
# Noise asks for large batches and few steps; without it small ones learn more from as many gradients.
COURSES: dict[str, dict[str, Any]] = {
    "8": {"batch_size": 250, "epochs": 5, "learning_rate": 6.0, "max_grad_norm": 0.3, "optimizer": "sgd"},
    "none": {"batch_size": 32, "epochs": 3, "learning_rate": 3.0e-3},
}
# task: the private set, its labels, the public sets with how many first rows of each (none shares an origin with it; a
# domain after a colon is all that is taken of a set: sentences on films, like the private ones), the rest of the block.
TASKS: dict[str, dict[str, Any]] = {
    "sst2": {
        "private": "sst2", "labels": ["negative", "positive"], "public": {"uci_sentiment:imdb": 600}, "post": {},
    },
    "agnews": {
        "private": "agnews",
        "labels": ["World", "Sports", "Business", "Sci/Tech"],
        "public": {"tweet_eval_sentiment": 1200, "financial_phrasebank": 600, "trec": 800},
        "post": {
            "task": {"name": "agnews", "max_length": 44},
            "prompt": {"text": "Read the news and say what it is about: the world, sports, business or science."},
        },
    },
}  # fmt: skip
ARMS = ("zero-shot", "student-prompt", "direct", "inference-time", "target-prompt")
TINY = {
    "task": {"max_length": 24},
    "prompt": {"tokens": 4},
    "distillation": {"epochs": 0.05, "length": 32, "batch_size": 4, "top_k": 16},
    "tuning": {"batch_size": 16, "epochs": 1},
    "transfer": {"samples": 8, "steps": 3, "batch_size": 4},
}


def first_rows(folder: Path, source: str, split: str, count: int, columns: Sequence[str]) -> list[str]:
    """The first rows of a split with the columns that count, as lines; fewer rows than asked for are refused.

    `source`: a data set's name, or name:domain for its rows of one domain.
    """
    name, _, domain = source.partition(":")
    with (folder / name / f"{split}.jsonl").open(encoding="utf-8") as file:
        rows = (row for row in map(json.loads, file) if not domain or row["domain"] == domain)
        lines = list(itertools.islice(rows, count))
    if len(lines) < count:
        sys.exit(f"{name}/{split}.jsonl: must have at least {count} rows, got {len(lines)}; give it whole")
    return [json.dumps({k: row[k] for k in columns}) + "\n" for row in lines]


def prepare(options: argparse.Namespace, name: str, split: str, rows: Mapping[str, int], *columns: str) -> str:
    """A file of the first rows of one or several sets, one set after the other."""
    place = options.runs / "data" / f"{name}-{split}-{sum(rows.values())}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = [line for source, n in rows.items() for line in first_rows(options.data, source, split, n, columns)]
    place.write_text("".join(lines), encoding="utf-8")
    return str(place.absolute())


def settings(options: argparse.Namespace, task: str, epsilon: str, seed: int) -> RunConfig:
    """The example's config for one task, epsilon and seed, with every arm."""
    about = TASKS[task]
    raw = load_config(EXAMPLE).model_dump(mode="json")
    size, test = (48, 24) if options.tiny else (TRAIN_ROWS, TEST_ROWS)
    train = prepare(options, about["private"], "train", {about["private"]: size}, "text", "label_text")
    held_out = prepare(options, about["private"], "test", {about["private"]: test}, "text", "label_text")
    block = merged(merged(raw.pop("method_config"), SIZES), about["post"])
    block["tuning"] |= COURSES[epsilon]
    block["distillation"] |= {"first": options.first, "precision": options.dtype}
    block = merged(block, TINY) if options.tiny else block

    def public(name: str, sources: Mapping[str, int]) -> dict[str, Any]:
        counts = {source: 16 if options.tiny else count for source, count in sources.items()}
        path = prepare(options, name, "train", counts, "text")
        return {"source": "json", "path": path, "text": "text", "public": True}

    block["distillation"] |= {
        "corpus": public("corpus", CORPUS), "store": str((options.runs / "students").absolute()),
    }  # fmt: skip
    block["transfer"]["public"] = [public(f"public-{task}", about["public"])]
    block["tuning"]["private"] = epsilon != "none"
    block["baselines"] = list(ARMS)
    (client,) = raw["clients"]
    client["data"] |= {"name": f"{task}-{size}", "size": size, "path": train, "labels": about["labels"]}
    raw["evaluation"]["data"]["path"] = held_out
    spends = [float(e) for e in EPSILONS if e != "none"]
    raw["budget"] = {
        "epsilon": spends[0] if epsilon == "none" else float(epsilon),
        "delta": 1e-3 if options.tiny else 1e-5,
        "cap_epsilon": sum(spends) * len(SEEDS),
        "cap_delta": 0.9 if options.tiny else 1e-3,
    }
    for role in ("target", "local_target"):
        raw["models"][role] |= {"dtype": options.dtype} | ({"model": options.target} if options.target else {})
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
        "machine": about_machine(),
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
        "not_measured": notes["not_measured"],
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
            lines.append(f"| {task} | {epsilon} | " + " | ".join(cell(row.get(arm)) for arm in arms) + " |")
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
    parser.add_argument("--first", type=int, default=14, help="first layers that the small model keeps")
    dtypes = ("float32", "bfloat16")
    parser.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="bfloat16 where the machine computes in it")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--epsilon", nargs="+", choices=EPSILONS, default=list(EPSILONS))
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--runs", type=Path, default=Path("runs/post-tasks"), help="run directories are kept here")
    parser.add_argument("--tiny", action="store_true", help="few rows and steps: that it runs, not how well")
    parser.add_argument("--machine", default="this-machine", help="names the results file")
    parser.add_argument("--out", type=Path, help="the results file itself")
    options = parser.parse_args()
    os.environ.setdefault("PRIVKT_STATE", str((options.runs / "state").absolute()))
    place = options.runs / "tiny.json" if options.tiny else HERE / "results" / f"post_tasks-{options.machine}.json"
    out = options.out or place
    known: dict[str, dict[str, dict[str, Any]]] = json.loads(out.read_text())["runs"] if out.exists() else {}
    for task, epsilon, seed in itertools.product(options.task, options.epsilon, options.seeds):
        print(f"{task}, epsilon {epsilon}, seed {seed}", flush=True)
        folder = options.runs / f"{task}-{epsilon}-{seed}"
        go_on(settings(options, task, epsilon, seed), folder, (seed,), "evaluate")
        found = gathered(folder) | {"dtype": options.dtype, "first": options.first}
        known.setdefault(task, {}).setdefault(epsilon, {})[str(seed)] = found
        runs = {task: {e: list(by_seed.values()) for e, by_seed in by.items()} for task, by in known.items()}
        result = {
            "machine": about_machine(),
            "target": Path(options.target or "smollm2-135m-instruct").name,
            "rows": {"train": TRAIN_ROWS, "test": TEST_ROWS},
            "settings": {"corpus": CORPUS, **SIZES, "tuning": COURSES},
            "data": {task: {k: TASKS[task][k] for k in ("private", "public", "post")} for task in known},
            "runs": known,
            "table": table(runs),
        }
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show(result["table"]))
    print(show_costs(runs))


if __name__ == "__main__":
    main()

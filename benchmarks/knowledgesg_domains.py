"""KnowledgeSG on patients' questions and on financial sentiment beside its baselines.

python benchmarks/knowledgesg_domains.py --data FOLDER [--domain medicine] [--professional FOLDER] [--base FOLDER]

FOLDER holds healthcaremagic/ and financial_phrasebank/, each with train.jsonl and test.jsonl: {"input": ...,
"output": ...} and {"text": ..., "label_text": ...}. Rows are drawn of each file, the same ones every time: one file is
sorted, and its first rows have other labels than the rest. Public seeds are the first rows of
medquad/ (questions) and of agnews/ (those on business), so that the control "teacher on the public seeds" has something
to learn from. Everything else is that of the examples knowledgesg-medical.yaml and knowledgesg-finance.yaml, but for
what SIZES says: one processor core has to get through it. The professional model is a stand-in: a general one, larger
than the base. The same command goes on where an interrupted one stopped, and what pieces of it found adds up in one
results file. Steps 1 to 4 are done once: what varies over seeds is the training of step 5, not the noise of step 1.

`--names` trains on a copy with planted names, and counts how many come back: after an ordinary training, after
privkt's, and after one with the private recipe (its batches, steps and learning rate) without clipping and noise, which
tells what of the difference privacy itself makes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from measuring.studies import Log, cell, go_on, machine, merged, names_table, peaks

from privkt.cli.running import comparison
from privkt.config import RunConfig, load_config, parse_config
from privkt.contracts import Adapter, Backend, BackendContext, Privacy, Recipe, Score, public_digest
from privkt.evaluation.memorisation import Planted, name_reconstruction, plant_names
from privkt.evaluation.report.build import build_report
from privkt.plugins import get_manager
from privkt.privacy import Budget, Release
from privkt.runtime.run_directory import RunDirectory

HERE = Path(__file__).parent
SEEDS = (0, 1)
FOLDERS = {"medicine": "healthcaremagic", "finance": "financial_phrasebank"}
EXAMPLES = {"medicine": "knowledgesg-medical", "finance": "knowledgesg-finance"}
# domain: the public set whose first rows are seeds, the column that is read, and what a row must be.
SEED_SETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "medicine": ("medquad", "input", {}),
    "finance": ("agnews", "text", {"label_text": "Business"}),
}
SEED_ROWS = 200
_LORA = {"rank": 8, "alpha": 16, "layers": 10}
# domain: how many private and held-out rows, and what differs from the example.
SIZES: dict[str, dict[str, Any]] = {
    "medicine": {
        "rows": {"train": 3364, "test": 60},
        "block": {
            "tuning": {"batch_size": 256, "epochs": 1.2, "learning_rate": 4.0e-3, "max_length": 128, "lora": _LORA},
            "writing": {"count": 700, "max_tokens": 64},
            "filters": {"domain": None},
            "professional": {"max_tokens": 64},
            "student": {"epochs": 1, "learning_rate": 1.0e-3, "max_length": 192, "lora": _LORA},
            "scoring": {"max_tokens": 64},
        },
    },
    "finance": {
        "rows": {"train": 1000, "test": 300},
        "block": {
            "tuning": {"batch_size": 250, "epochs": 5, "learning_rate": 4.0e-3, "max_length": 112, "lora": _LORA},
            "filters": {"domain": None},
            "student": {"epochs": 4, "learning_rate": 1.0e-3, "max_length": 112, "lora": _LORA},
        },
    },
}
TINY_ROWS = 24
# Of the study of planted names.
NAMES_ROWS, NAMES_LENGTH, ATTACKED = 200, 96, 100
NAMES_RECIPE: dict[str, Any] = {"batch_size": 100, "epochs": 5.0, "max_length": NAMES_LENGTH}
# Without privacy so long that texts are learnt by heart: an attack that finds nothing there says nothing of privkt's.
BARE_RECIPE: dict[str, Any] = {"epochs": 30.0, "learning_rate": 2.0e-3, "max_length": NAMES_LENGTH}
TINY = {
    "tuning": {"batch_size": 12, "epochs": 1, "max_length": 96},
    "writing": {"count": 4, "max_tokens": 24},
    "filters": {"domain": None, "min_words": 1, "unfinished": "keep"},
    "professional": {"max_tokens": 16},
    "student": {"epochs": 1, "max_length": 96},
    "scoring": {"max_tokens": 8, "rows": 4},
}
_NAMES = (
    "Adaeze Agneta Akiko Anselm Bertil Bogdan Caoimhe Chidi Dagny Dmitri Efua Eino Fatou Fenna Giorgi Gudrun Hamza "
    "Hedda Ilse Ines Jarek Jomo Kaisa Kwame Leocadia Lubna Maelle Marit Nadim Nilda Odile Osman Paavo Priya Quirin "
    "Ragna Rohan Saoirse Sunil Tariq Thora Ulrik Usha Vesna Viggo Wanjiru Wenzel Xenia Yusuf Zofia"
)
NAMES = tuple(_NAMES.split())


def prepare(options: argparse.Namespace, domain: str) -> dict[str, Path]:
    """The files of one domain: rows of each split, drawn anew in an order that is always the same."""
    target = options.runs / domain / "data"
    target.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, wanted in SIZES[domain]["rows"].items():
        source = options.data / FOLDERS[domain] / f"{split}.jsonl"
        if not source.exists():
            sys.exit(f"{FOLDERS[domain]}/{split}.jsonl: no such file under --data; give the folder of both sets")
        count = TINY_ROWS if options.tiny else wanted
        lines = source.read_text(encoding="utf-8").splitlines()
        if len(lines) < count:
            sys.exit(
                f"{FOLDERS[domain]}/{split}.jsonl: must have at least {count} rows, got {len(lines)}; give it whole"
            )
        lines = random.Random(11).sample(lines, count)
        found[split] = target / f"{split}-{count}.jsonl"
        found[split].write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return found


def public_seeds(options: argparse.Namespace, domain: str) -> Path:
    """A file of the first rows of the domain's public set, each in the column `text`."""
    name, column, wanted = SEED_SETS[domain]
    with (options.data / name / "train.jsonl").open(encoding="utf-8") as file:
        rows = (row for row in map(json.loads, file) if all(row[k] == v for k, v in wanted.items()))
        found = [row[column] for row in itertools.islice(rows, 6 if options.tiny else SEED_ROWS)]
    target = options.runs / domain / "data" / f"seeds-{len(found)}.jsonl"
    target.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
    return target


def settings(options: argparse.Namespace, domain: str) -> RunConfig:
    """The example's config of one domain with the given models, and every baseline of the page."""
    raw = load_config(HERE.parent / "examples" / f"{EXAMPLES[domain]}.yaml").model_dump(mode="json")
    files = prepare(options, domain)
    block = merged(raw.pop("method_config"), SIZES[domain]["block"])
    seeds = {"source": "json", "path": str(public_seeds(options, domain).absolute()), "text": "text", "public": True}
    raw["knowledgesg"] = (merged(block, TINY) if options.tiny else block) | {"seeds": seeds}
    size = TINY_ROWS if options.tiny else SIZES[domain]["rows"]["train"]
    raw["clients"][0]["data"] |= {
        "name": f"{domain}-{size}", "size": size, "path": str(files["train"].absolute()),
    }  # fmt: skip
    raw["evaluation"]["data"]["path"] = str(files["test"].absolute())
    for role, model in (("base", options.base), ("professional", options.professional)):
        if model:
            raw["models"][role]["model"] = model
    return comparison(parse_config({**raw, "seeds": list(SEEDS)}))


def gathered(report: Mapping[str, Any]) -> dict[str, Any]:
    """What one run found: scores, price, what was written, kept and answered, seconds."""
    client = next(iter(report["clients"].values()))
    server = next(iter(report["server"].values()), {})
    return {
        "finished": report["finished"],
        "machine": machine(),
        "scores": client["scores"],
        "trainings": client["trainings"],
        "ledger": client["ledger"]["spent"],
        "crossed": [{k: row[k] for k in ("scope", "message", "bytes")} for row in report["crossed"]],
        "seconds": report["seconds"],
        "overlap": {seed: notes["overlap"] for seed, notes in client["notes"].items()},
        "server": next(iter(server.values()), {}),
    }


def held_out_labels(config: RunConfig) -> dict[str, int]:
    """How many held-out rows have each label, by name; none where responses are free."""
    assert config.evaluation is not None
    column, labels = config.evaluation.data.label, config.clients[0].data.labels
    if column is None or labels is None:
        return {}
    lines = Path(str(config.evaluation.data.path)).read_text(encoding="utf-8").splitlines()
    counts = Counter(str(json.loads(line)[column]) for line in lines)
    names = config.method_config.get("label_names", {})
    return {names.get(label, label): counts[label] for label in labels}


def show(domains: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each domain, as Markdown: every arm with every metric."""
    lines: list[str] = []
    for domain, run in domains.items():
        metrics = list(next(iter(run["scores"].values()), {}))
        lines += ["", f"| {domain} | " + " | ".join(metrics) + " |", "| --- |" + " --- |" * len(metrics)]
        lines += [
            f"| {arm} | " + " | ".join(cell(found.get(metric)) for metric in metrics) + " |"
            for arm, found in run["scores"].items()
        ]
    return "\n".join(lines)


class _Asked:
    """The untrained model's scores, computed once: every training is compared with the same texts."""

    def __init__(self, model: Backend) -> None:
        self.model = model
        self.known: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Score]] = {}

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        key = tuple(prompts), tuple(continuations)
        if key not in self.known:
            self.known[key] = self.model.score(prompts, continuations)
        return self.known[key]


def names_study(options: argparse.Namespace, config: RunConfig, domain: str) -> dict[str, Any]:
    """Planted names that come back from adapters trained on a copy, and what each was trained with.

    The attack that counts is the plain one, without the control; the other is beside it.
    """
    from privkt_knowledgesg.config import KnowledgeSGConfig
    from privkt_knowledgesg.pairs import Pair, make_pair_template

    block = KnowledgeSGConfig.model_validate(config.method_config)
    template = make_pair_template(block.template)
    path, column = Path(str(config.clients[0].data.path)), config.clients[0].data.text
    texts = [json.loads(line)[column] for line in path.read_text(encoding="utf-8").splitlines()[:NAMES_ROWS]]
    planted = plant_names(texts, NAMES, seed=7)
    examples = [template.example(Pair(record.text, ""), "pair") for record in planted]
    count = min(len(planted), 8 if options.tiny else ATTACKED)
    attacked = [
        Planted(template.opening + r.prefix, r.name, r.suffix[:80]) for r in random.Random(5).sample(planted, count)
    ]
    model = config.models["base"]
    base = get_manager().create("backend", model.backend, model.options, BackendContext("base", "client"))
    recipe = block.tuning.recipe(base.options, 0)
    folder = options.runs / domain / "names"
    public = replace(block.student.recipe(0), **BARE_RECIPE)
    recipe = replace(recipe, **NAMES_RECIPE | {"batch_size": min(NAMES_RECIPE["batch_size"], len(examples) // 2)})
    if options.tiny:
        recipe, public = replace(recipe, epochs=1.0), replace(public, epochs=1.0)
    trainings: dict[str, tuple[Recipe, Privacy | None]] = {
        "without privacy": (public, None),
        "the private recipe without clipping and noise": (recipe, None),
        "privkt": (recipe, _privacy(config, len(examples))),
    }
    # Of what a training learns from: one that was cut goes on, and no other's adapter is ever attacked in its place.
    about = json.dumps([[[e.prompt, e.completion] for e in examples], str(base.identity)])
    control = cast("Backend", _Asked(base))
    found: dict[str, Any] = {}
    for name, (one, privacy) in trainings.items():
        place = folder / public_digest(json.dumps([about, asdict(one), str(privacy)], default=str))[:16]
        made = base.train(examples, one, folder=place, privacy=privacy, progress=Log())
        guarantee = "none"
        if isinstance(made, Release):
            guarantee, made = str(made.guarantee), made.payload
        assert isinstance(made, Adapter)
        trained = base.with_weights(made)
        attack = name_reconstruction(trained, attacked, NAMES, control=control, seed=3).to_json()
        trained.release_memory()
        keys = ("epochs", "batch_size", "learning_rate", "schedule", "max_length", "max_grad_norm", "lora")
        steps = math.ceil(one.epochs * len(examples) / one.batch_size)
        found[name] = attack | {
            "guarantee": guarantee, "training": {"steps": steps} | {k: getattr(one, k) for k in keys},
        }  # fmt: skip
    return found


def _privacy(config: RunConfig, size: int) -> Privacy:
    """The price of private training on the copy; it is attacked and thrown away, so no ledger is charged."""
    budget = Budget(config.budget.epsilon, min(1e-5, 1 / (10 * size)))
    return Privacy(budget, size, "names", "names: a copy with planted names", "copy", "copy")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds healthcaremagic/ and financial_phrasebank/")
    parser.add_argument("--domain", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--professional", help="folder or name of the larger model, in process")
    parser.add_argument("--base", help="folder or name of the base model")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="0, or 0 1, or all: run in order")
    parser.add_argument("--names", action="store_true", help="count planted names that come back, and nothing else")
    parser.add_argument("--runs", type=Path, default=Path("runs/knowledgesg-domains"), help="run directories lie here")
    parser.add_argument("--tiny", action="store_true", help="few rows and tokens: that it runs, not how well")
    parser.add_argument("--machine", default="this-machine", help="names the results file")
    parser.add_argument("--out", type=Path, help="the results file itself")
    options = parser.parse_args()
    if tuple(options.seeds) != SEEDS[: len(options.seeds)]:
        parser.error(f"--seeds: must begin at {SEEDS[0]} and leave none out, since a run goes through them in order")
    os.environ.setdefault("PRIVKT_STATE", str((options.runs / "state").absolute()))
    place = (
        options.runs / "tiny.json" if options.tiny else HERE / "results" / f"knowledgesg_domains-{options.machine}.json"
    )
    out = options.out or place
    known = json.loads(out.read_text())["domains"] if out.exists() else {}
    for domain in options.domain:
        print(domain, flush=True)
        config, folder = settings(options, domain), options.runs / domain / "run"
        if options.names:
            known.setdefault(domain, {})["names"] = names_study(options, config, domain)
        else:
            go_on(config, folder, config.seeds[: len(options.seeds)], "evaluate")
            if RunDirectory.is_run(folder):
                closing = config.method_config["professional"].get("closing")
                found = gathered(build_report(folder)) | {"peaks_mib": peaks(folder), "closing": closing}
                found["held_out"] = held_out_labels(config)
                known[domain] = known.get(domain, {}) | found
        result = {
            "machine": machine(),
            "models": {role: Path(model.options["model"]).name for role, model in config.models.items()},
            "the professional model is": "a general model that stands in for one of the field",
            "sizes": {name: size for name, size in SIZES.items() if "scores" in known.get(name, {})},
            "seeds": {"rows": SEED_ROWS, "of": SEED_SETS},
            "names": {
                "rows": NAMES_ROWS,
                "tokens": NAMES_LENGTH,
                "attacked": ATTACKED,
                "candidates": len(NAMES),
            },
            "domains": known,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(show({name: run for name, run in known.items() if "scores" in run}))
    for name, run in known.items():
        if "names" in run:
            print(f"\n{name}, planted names that come back\n{names_table(run['names'])}")


if __name__ == "__main__":
    main()

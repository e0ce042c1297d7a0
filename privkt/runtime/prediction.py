"""New texts labelled by a finished run's final model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from privkt.contracts import BackendContext, NoProgress, Prediction, Progress, Side, TransferMethod
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.runtime.results import stored_outcomes
from privkt.runtime.run_directory import RunDirectory


def predict_texts(
    path: Path | str, texts: Sequence[str], *, client: str | None = None, progress: Progress | None = None
) -> list[Prediction]:
    """The most probable label of each text, by the model of the run's first seed that ended.

    Raises: RefusedInput, when the run has no model yet, has several clients and none is named, its method labels
        nothing, or a remote model would be sent the texts.
    """
    run = RunDirectory.open(path)
    config = run.config()
    names = [c.name for c in config.clients]
    if client is None and len(names) > 1:
        raise RefusedInput(f"predict: the run has clients {', '.join(names)}; say whose model with --client")
    chosen = client or names[0]
    if chosen not in names:
        raise RefusedInput(f"predict: no client {chosen!r} in this run; it has {', '.join(names)}")
    progress, manager = progress or NoProgress(), get_manager()
    method = manager.load("method", config.method)
    if method.predict is TransferMethod.predict:
        raise RefusedInput(f"predict: method {config.method!r} makes no model that labels texts; use a run of another")
    outcomes = stored_outcomes(run, method).get(chosen, {})
    outcome = next((outcomes[seed] for seed in config.seeds if seed in outcomes), None)
    if outcome is None or outcome.model is None:
        raise RefusedInput(f"predict: the run in {path} has no final model yet; finish it: privkt run --resume {path}")
    data = next(c.data for c in config.clients if c.name == chosen)
    models = {}
    for role in method.client_roles:
        if role not in config.models:
            continue  # an optional one
        given = config.models[role]
        models[role] = manager.create(
            "backend", given.backend, given.options, BackendContext(role, str(Side.CLIENT), None, progress)
        )
        if models[role].remote and not data.public:
            raise RefusedInput(
                f"predict: models.{role} is remote, and would be sent these texts in clear, which no guarantee covers; "
                "use a run whose client models are in this process, or whose data is declared public"
            )
    built: TransferMethod = method(method.Config.model_validate(config.method_config))
    return built.predict(models, outcome, list(texts), data.labels or ())


def text_column(path: Path | str, client: str | None = None) -> str:
    """The name of the text column of a run's own data, of its first client where none is named."""
    clients = RunDirectory.open(path).config().clients
    return next((c.data.text for c in clients if c.name == client), clients[0].data.text)


def read_texts(path: Path | str, column: str = "text", *, subject: str = "predict") -> list[str]:
    """Texts of a JSONL or CSV file's column, or the lines of any other file.

    Raises: RefusedInput, naming the line and the rule, never a text.
    """
    path = Path(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RefusedInput(f"{subject}: no file at {path}; give JSONL, CSV or plain text") from None
    except OSError as error:
        raise RefusedInput(
            f"{subject}: {path} must be a file that can be read, got {error.strerror}; mend it"
        ) from None
    except UnicodeDecodeError as error:
        raise RefusedInput(f"{subject}: {path} must be UTF-8, and byte {error.start} is not; convert it") from None
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        texts = [
            _from_json(line, number, column, subject)
            for number, line in enumerate(content.split("\n"), 1)
            if line.strip()
        ]
    elif suffix == ".csv":
        texts = _from_csv(content, path.name, column, subject)
    else:
        texts = [line.rstrip("\r") for line in content.split("\n") if line.strip()]
    if not texts:
        raise RefusedInput(f"{subject}: {path.name} must hold at least one text, got none")
    return texts


def _from_csv(content: str, name: str, column: str, subject: str) -> list[str]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        if column not in (reader.fieldnames or ()):
            raise RefusedInput(f"{subject}: {name} has no column {column!r}; name its text column with --text")
        rows = list(reader)
    except csv.Error:
        raise RefusedInput(f"{subject}: {name} is not CSV near line {reader.line_num}; check its quotes") from None
    for number, row in enumerate(rows, 1):
        if row[column] is None:
            raise RefusedInput(f"{subject}: row {number} of {name} ends before column {column!r}; mend the row")
    return [row[column] for row in rows]


def _from_json(line: str, number: int, column: str, subject: str) -> str:
    try:
        row = json.loads(line)
    except ValueError:
        raise RefusedInput(f"{subject}: line {number} is not JSON; every line must be one object") from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise RefusedInput(f"{subject}: line {number} has no string under {column!r}; name the text column with --text")
    return row[column]

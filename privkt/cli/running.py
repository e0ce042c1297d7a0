"""`privkt plan`, `run`, `compare`, `predict`: thin faces of the local runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.cli.output import err, out, print_json, progress

if TYPE_CHECKING:
    from privkt.config import RunConfig
    from privkt.contracts import Message
    from privkt.plugins import ReleaseSummary
    from privkt.runtime.results import RunResult


def plan(path: Path, as_json: bool) -> None:
    """Checks a config and its data and prints the plan of every client."""
    from dataclasses import asdict

    from privkt.config import load_config
    from privkt.plugins import get_manager
    from privkt.runtime.accounts import left_of
    from privkt.runtime.preflight import prepare

    config = load_config(path)
    setup = prepare(config, get_manager())
    left = {client.name: left_of(client) for client in setup.clients}
    if as_json:
        print_json({c.name: {"plan": asdict(c.plan), "left": asdict(left[c.name])} for c in setup.clients})
        return
    for client in setup.clients:
        made = client.plan
        out.print(f"[bold]{client.name}[/bold] (data set {client.config.data.name}, N = {client.config.data.size})")
        for t in made.trainings:
            out.print(f"  {t.purpose}: {t.guarantee}")
            out.print(
                f"    noise multiplier {t.noise_multiplier:.4f}, sampling rate {t.sampling_rate:.4g}, {t.steps} steps, "
                f"noise per coordinate {t.noise_per_coordinate:.4f} clip norms"
            )
        if made.llm_requests:
            out.print(
                f"  asked of the large model, for each seed: {made.llm_requests:,} requests, about "
                f"{made.llm_prompt_tokens:,} tokens sent, at most {made.llm_new_tokens:,} written"
            )
        for line in made.crosses:
            out.print(f"  crosses: {line}")
        out.print(f"  bytes that will cross, for each seed: about {made.bytes_out:,}")
        out.print(f"  left in the ledger before this run: epsilon {left[client.name].epsilon:.4g}")
        for line in made.not_covered:
            out.print(f"  not covered: {line}")
        for line in made.warnings:
            out.print(f"  [yellow]warning:[/yellow] {line}")
    out.print("nothing was spent")


def run(
    config: Path | None, *, output: Path | None, resume: Path | None, review: bool, data_changed: bool, force: bool
) -> None:
    """Runs or resumes, then prints the report."""
    from privkt.config import load_config
    from privkt.privacy import RefusedInput
    from privkt.runtime.run_directory import RunDirectory

    if resume is not None:
        directory = RunDirectory.open(resume)
        read = load_config(config) if config is not None else directory.config()
        execute(read, resume, review=review, data_changed=data_changed, force=force)
    elif config is not None:
        execute(load_config(config), output or new_folder(config.stem), review, data_changed, force)
    else:
        raise RefusedInput("run: give a config to start, or --resume DIR to go on, got neither")


def compare(config: Path, *, output: Path | None, resume: Path | None, seeds: int | None) -> None:
    """Runs a method with every baseline of its page."""
    from privkt.config import load_config

    read = comparison(load_config(config), seeds)
    execute(read, resume or output or new_folder(f"{config.stem}-compare"))


def comparison(config: RunConfig, seeds: int | None = None) -> RunConfig:
    """The config with all of its method's baselines on."""
    from pydantic import ValidationError

    from privkt.config import describe
    from privkt.plugins import get_manager
    from privkt.privacy import RefusedInput

    method = get_manager().load("method", config.method)
    try:
        checked = method.Config.model_validate(config.method_config)
    except ValidationError as error:
        raise RefusedInput(describe(config.method, error, method.Config)) from None
    full = method(checked).comparison().model_dump(mode="json")
    return config.model_copy(update={"method_config": full, "seeds": tuple(range(seeds)) if seeds else config.seeds})


def execute(
    config: RunConfig, folder: Path, review: bool = False, data_changed: bool = False, force: bool = False
) -> RunResult:
    """Runs a config in a folder, writes the report and prints it."""
    from privkt.cli.tables import print_report
    from privkt.evaluation.report.build import build_report
    from privkt.evaluation.report.render import write_report
    from privkt.runtime.local import LocalRuntime

    # Bars and questions would fight for the terminal.
    with progress(show=not review) as shown:
        runtime = LocalRuntime(
            config,
            folder,
            progress=shown,
            review=_ask if review else None,
            force=force,
            data_changed=data_changed,
        )
        result = runtime.run()
    html, _ = write_report(result.path)
    print_report(build_report(result.path))
    out.print(f"\nrun directory: {result.path}\nreport: {html}")
    return result


def predict(run_directory: Path, file: Path, *, output: Path | None, text: str, client: str | None) -> None:
    """Labels the texts of a file, one JSON line each."""
    from privkt.runtime.prediction import predict_texts, read_texts

    predictions = predict_texts(run_directory, read_texts(file, text), client=client)
    lines = [json.dumps({"label": p.label, "probability": round(p.probability, 6)}) for p in predictions]
    if output is None:
        for line in lines:
            print(line)
    else:
        from privkt.runtime.files import write_file

        write_file(output, "".join(f"{line}\n" for line in lines).encode())
        err.print(f"{len(lines)} predictions in {output}")


def new_folder(name: str) -> Path:
    """A new folder under ./runs; its name says what and when."""
    import time

    base = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    found, again = base, 1
    while found.exists():
        again += 1
        found = base.with_name(f"{base.name}-{again}")
    return found


def _ask(summary: ReleaseSummary, message: Message) -> bool:
    import typer

    out.print(
        f"\n[bold]{summary.client}[/bold] is about to send {summary.message}, {summary.rows} rows, "
        f"{summary.size_bytes:,} bytes, after step {summary.step!r}; sha256 {summary.sha256}"
    )
    for line in _preview(message):
        out.print(line, markup=False)
    return typer.confirm("Let it cross? (no: the spend stays, and another draw is another spend)", default=False)


def _preview(message: Message) -> list[str]:
    rows: Any = list(message) if hasattr(message, "text") else []
    if not rows:
        return [f"  {name}: {len(data):,} bytes" for name, data in getattr(message, "files", {}).items()]
    return [f"  [{row.label}] {row.text}" for row in rows]

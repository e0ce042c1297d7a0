"""`privkt plan`, `run`, `compare`, `predict`: thin faces of the local runtime."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from privkt.cli.errors import Interrupted
from privkt.cli.output import err, out, print_json, progress, visible

if TYPE_CHECKING:
    from privkt.config import RunConfig
    from privkt.contracts import Message, Plan
    from privkt.plugins import ReleaseSummary
    from privkt.runtime.results import RunResult


def plan(path: Path, *, as_json: bool, data_changed: bool = False, new_name_confirmed: bool = False) -> None:
    """Checks a config, its data and its ledgers as a run would, and prints the plan of every client."""
    from dataclasses import asdict

    from privkt.config import load_config
    from privkt.plugins import get_manager
    from privkt.runtime.accounts import check_clients, left_of
    from privkt.runtime.preflight import prepare

    config = load_config(path)
    setup = prepare(config, get_manager())
    check_clients(setup.clients, same_data_confirmed=new_name_confirmed)
    left = {
        client.name: left_of(client, data_changed=data_changed, same_data_confirmed=new_name_confirmed)
        for client in setup.clients
    }
    if as_json:
        print_json(
            {
                c.name: {"plan": asdict(c.plan), "left": {"epsilon": left[c.name].epsilon, "delta": left[c.name].delta}}
                for c in setup.clients
            }
        )
        return
    for client in setup.clients:
        data = client.config.data
        out.print(f"[bold]{client.name}[/bold] (data set {data.name}, N = {data.size})")
        if data.labels:
            places = ", ".join(f"{i} {label}" for i, label in enumerate(data.labels))
            out.print(f"  labels, by place where a column holds numbers: {escape(places)}")
        for line in plan_lines(client.plan):
            out.print(f"  {line}")
        out.print(f"  left in the ledger before this run: {left[client.name]}")
    out.print("nothing was spent")


def plan_lines(made: Plan) -> Iterator[str]:
    """A plan in words, a fact a line, in rich's markup."""
    from privkt.privacy.guarantee import rounded_up

    for t in made.trainings:
        yield f"{escape(t.purpose)}: [bold]{escape(str(t.guarantee))}[/bold]"
        yield (
            f"  noise multiplier {t.noise_multiplier:.4f}, sampling rate {t.sampling_rate:.4g}, {t.steps} steps, "
            f"noise per coordinate {t.noise_per_coordinate:.4f} clip norms"
        )
    for p in made.perturbations:
        yield f"{escape(p.purpose)}: [bold]{escape(str(p.guarantee))}[/bold]"
        yield (
            f"  {escape(p.mechanism)}, {p.positions} tokens a record, whatever its length, each at epsilon = "
            f"{rounded_up(p.epsilon_per_token)}"
        )
        yield from (f"  {escape(line)}" for line in p.facts)
    for s in made.statistics:
        yield f"{escape(s.purpose)}: [bold]{escape(str(s.guarantee))}[/bold]"
        yield from (f"  {escape(line)}" for line in s.facts)
    seeds = "once for all seeds" if made.shared else "for each seed"
    if made.llm_requests:
        yield (
            f"asked of the large model, {seeds}: {made.llm_requests:,} requests, about "
            f"{made.llm_prompt_tokens:,} tokens sent, at most {made.llm_new_tokens:,} written"
        )
    yield from (f"crosses: {escape(line)}" for line in made.crosses)
    size = "follow from the model's shape" if made.bytes_out is None else f"about {made.bytes_out:,}"
    yield f"bytes that will cross, {seeds}: {size}"
    yield from (f"not covered: {escape(line)}" for line in made.not_covered)
    yield from (f"[yellow]warning:[/yellow] {escape(line)}" for line in made.warnings)


def run(
    config: Path | None,
    *,
    output: Path | None,
    resume: Path | None,
    review: bool,
    data_changed: bool,
    new_name_confirmed: bool,
    force: bool,
) -> None:
    """Runs or resumes, then prints the report."""
    from privkt.config import load_config
    from privkt.privacy import RefusedInput
    from privkt.runtime.run_directory import RunDirectory

    said = {
        "review": review, "data_changed": data_changed, "new_name_confirmed": new_name_confirmed, "force": force,
    }  # fmt: skip
    if resume is not None:
        _need_one_folder("run", output)
        directory = RunDirectory.open(resume)
        read = load_config(config) if config is not None else directory.config()
        execute(read, resume, resume=True, **said)
    elif config is not None:
        execute(load_config(config), output or new_folder(config.stem), **said)
    else:
        raise RefusedInput("run: give a config to start, or --resume DIR to go on, got neither")


def _need_one_folder(command: str, output: Path | None) -> None:
    from privkt.privacy import RefusedInput

    if output is not None:
        raise RefusedInput(f"{command}: --resume goes on in its own folder, got --output too; leave one of them out")


def compare(
    config: Path,
    *,
    output: Path | None,
    resume: Path | None,
    seeds: int | None,
    data_changed: bool = False,
    new_name_confirmed: bool = False,
) -> None:
    """Runs a method with every baseline of its page."""
    from privkt.config import load_config
    from privkt.runtime.run_directory import RunDirectory

    if resume is not None:
        _need_one_folder("compare", output)
        RunDirectory.open(resume)
    execute(
        comparison(load_config(config), seeds),
        resume or output or new_folder(f"{config.stem}-compare"),
        resume=resume is not None,
        data_changed=data_changed,
        new_name_confirmed=new_name_confirmed,
    )


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
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    review: bool = False,
    data_changed: bool = False,
    new_name_confirmed: bool = False,
    force: bool = False,
) -> RunResult:
    """Runs a config in a folder, writes the report and prints it.

    Raises: Interrupted, for Ctrl-C; what LocalRuntime raises.
    """
    from privkt.cli.tables import print_report
    from privkt.evaluation.report.build import build_report
    from privkt.evaluation.report.render import write_report
    from privkt.runtime.local import LocalRuntime
    from privkt.runtime.run_directory import RunDirectory

    if not resume:
        RunDirectory.need_free(folder)
    try:
        # Bars and questions would fight for the terminal.
        with progress(show=not review) as shown:
            runtime = LocalRuntime(
                config,
                folder,
                progress=shown,
                review=ask if review else None,
                force=force,
                data_changed=data_changed,
                same_data_confirmed=new_name_confirmed,
            )
            result = runtime.run()
    except KeyboardInterrupt:
        if not RunDirectory.is_run(folder):
            raise Interrupted("nothing was begun and nothing was spent") from None
        raise Interrupted(
            f"what is done is kept; `privkt run --resume {folder}` finishes the run with the same epsilon"
        ) from None
    values = build_report(result.path)
    html, _ = write_report(result.path, values)
    print_report(values)
    out.print(f"\nrun directory: {result.path}\nreport: {html}", markup=False)
    return result


def predict(run_directory: Path, file: Path, *, output: Path | None, text: str | None, client: str | None) -> None:
    """Labels the texts of a file, one JSON line each."""
    from privkt.runtime.prediction import predict_texts, read_texts, text_column

    texts = read_texts(file, text or text_column(run_directory, client))
    with progress() as shown:
        predictions = predict_texts(run_directory, texts, client=client, progress=shown)
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


def ask(summary: ReleaseSummary, message: Message) -> bool:
    """Shows what is about to cross, decoded from its very bytes, and waits for yes or no."""
    rows = f"{summary.rows} rows, " if summary.message == "texts" else ""
    out.print(
        f"\n{summary.client} is about to send {summary.message}, {rows}{summary.size_bytes:,} bytes, "
        f"after step {summary.step!r}; {summary.guarantee}; sha256 {summary.sha256}",
        markup=False,
    )
    for line in _preview(message):
        out.print(f"  {visible(line)}", markup=False)
    out.print("Let it cross? (no: the spend stays, and another draw is another spend) [y/N]", end=" ", markup=False)
    # Not click's prompt, which turns Ctrl-C into an error of its own; without anybody there, the line is empty: no.
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _preview(message: Message) -> list[str]:
    from privkt.contracts import Adapter, Parcel, SoftPrompt, Texts

    if isinstance(message, Texts):
        return [f"[{row.label}] {row.text}" for row in message]
    if isinstance(message, Parcel):
        return [f"{name}: {line}" for name, item in message.items.items() for line in _preview(item)]
    if isinstance(message, Adapter | SoftPrompt):
        return [f"{name}: {len(data):,} bytes" for name, data in message.files.items()]
    return []

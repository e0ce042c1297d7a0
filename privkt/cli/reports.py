"""`privkt show` and `privkt report`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from privkt.cli.output import out, print_json, visible


def show(path: Path, as_json: bool) -> None:
    """Prints a run's report."""
    from privkt.cli.tables import print_report
    from privkt.evaluation.report.build import build_report

    values = build_report(path)
    if as_json:
        print_json(values)
    else:
        if not values["finished"]:
            out.print("[yellow]not finished;[/yellow] go on with:", f"privkt run --resume {escape(str(path))}")
        print_report(values)


def show_texts(path: Path, as_json: bool) -> None:
    """Prints the texts that crossed, decoded from the files in `outbound/`: label and text a line.

    Raises: RefusedInput, when a file is missing or is not the one that the manifest names.
    """
    from privkt.contracts import Texts
    from privkt.privacy import RefusedInput
    from privkt.runtime import wire
    from privkt.runtime.gate import read_manifest
    from privkt.runtime.run_directory import RunDirectory

    run, listed = RunDirectory.open(path), []
    for crossing in read_manifest(run):
        if crossing.message != "texts":
            continue
        file = run.outbound / crossing.file
        data = file.read_bytes() if file.is_file() else b""
        if wire.digest(data) != crossing.sha256:
            raise RefusedInput(
                f"outbound/{crossing.file}: must be the bytes that crossed, by the manifest's SHA-256, got "
                f"{'others' if data else 'none'}; put the file back from a copy"
            )
        message = wire.decode(data)
        assert isinstance(message, Texts)
        listed.append((crossing, message))
    if as_json:
        rows = (
            {"client": c.client, "step": c.step, "scope": c.scope, "label": row.label, "text": row.text}
            for c, texts in listed
            for row in texts
        )
        print_json(list(rows))
        return
    for crossing, texts in listed:
        out.print(str(crossing), style="bold", markup=False)
        for row in texts:
            label = "" if row.label is None else f"[{visible(row.label)}] "
            out.print(f"  {label}{visible(row.text)}", markup=False)
    if not listed:
        out.print("no texts crossed")


def report(path: Path) -> None:
    """Writes a run's report anew."""
    from privkt.evaluation.report.render import write_report

    html, values = write_report(path)
    out.print(str(html), markup=False)
    out.print(str(values), markup=False)

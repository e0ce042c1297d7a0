"""`privkt show` and `privkt report`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from privkt.cli.output import out, print_json, visible

if TYPE_CHECKING:
    from privkt.contracts import Texts


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
    """Prints the texts that crossed, decoded from the files in `outbound/`: label, text and columns a line.

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
            {
                "client": c.client,
                "step": c.step,
                "scope": c.scope,
                "label": row.label,
                "text": row.text,
                **({"columns": more} if more else {}),
            }
            for c, texts in listed
            for row, more in zip(texts, _further(texts), strict=True)
        )
        print_json(list(rows))
        return
    for crossing, texts in listed:
        out.print(str(crossing), style="bold", markup=False)
        for row, more in zip(texts, _further(texts), strict=True):
            label = "" if row.label is None else f"[{visible(row.label)}] "
            further = "".join(f"; {name}: {visible(value)}" for name, value in more.items())
            out.print(f"  {label}{visible(row.text)}{further}", markup=False)
    if not listed:
        out.print("no texts crossed")


def _further(texts: Texts) -> Iterator[dict[str, str]]:
    """What each row has beside text and label."""
    return ({name: column[i] for name, column in texts.columns.items()} for i in range(len(texts)))


def report(path: Path) -> None:
    """Writes a run's report anew."""
    from privkt.evaluation.report.render import write_report

    html, values = write_report(path)
    out.print(str(html), markup=False)
    out.print(str(values), markup=False)

"""`privkt show` and `privkt report`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from privkt.cli.output import out, print_json


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


def report(path: Path) -> None:
    """Writes a run's report anew."""
    from privkt.evaluation.report.render import write_report

    html, values = write_report(path)
    out.print(str(html), markup=False)
    out.print(str(values), markup=False)

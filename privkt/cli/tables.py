"""Tables of results for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from privkt.cli.output import out
from privkt.evaluation.report.render import canaries, metrics_of, summaries, what_crossed
from privkt.privacy.guarantee import rounded_up


def print_report(report: Mapping[str, Any]) -> None:
    """Scores, what was spent and what crossed, a client at a time."""
    for name, client in report["clients"].items():
        if len(report["clients"]) > 1:
            out.print(f"\n[bold]client {name}[/bold]")
        _scores(client)
        _spent(client)
        planted = canaries(client)
        if planted:
            repeated = int(planted["repeated"])
            said = "none came out" if repeated == 0 else f"[red]{repeated} came out[/red]"
            out.print(f"planted names and numbers: {int(planted['total'])}, {said}")
    if report["epsilon_statement"]:
        out.print(report["epsilon_statement"])
    crossed = report["crossed"]
    total = sum(row["bytes"] for row in crossed)
    rows = sum(row["rows"] for row in crossed)
    out.print(f"what crossed: {rows} rows in {len(crossed)} message(s), {total:,} bytes, all of it in outbound/")


def _scores(client: Mapping[str, Any]) -> None:
    scores = summaries(client)
    if not scores:
        out.print("no evaluation data: nothing was scored")
        return
    charged = client["trainings"][0] if client["trainings"] else None
    metrics = metrics_of(scores)
    table = Table("small model trained on", *(m.replace("_", " ") for m in metrics), "what crossed is protected by")
    for arm, values in scores.items():
        style = "bold" if arm == "FDKT" else ("dim" if "not private" in arm else "")
        table.add_row(
            arm, *(str(values[m]) if m in values else "" for m in metrics), what_crossed(arm, charged), style=style
        )
    out.print(table)


def _spent(client: Mapping[str, Any]) -> None:
    for training in client["trainings"]:
        out.print(f"{training['purpose']}: [bold]{training['guarantee']}[/bold]")
        out.print(
            f"  noise multiplier {training.get('noise_multiplier', float('nan')):.4f}, sampling rate "
            f"{training.get('sampling_rate', float('nan')):.4g}, {training['steps']} steps planned, "
            f"{training['taken']} taken"
        )
    ledger = client["ledger"]
    spent, left = ledger["spent"], ledger["left"]
    out.print(f"{ledger['statement']}; left: epsilon = {_number(left['epsilon'])}")
    if spent["infinite"]:
        out.print("[red]something unprotected left this data set: its total epsilon is infinite[/red]")


def _number(value: float | str) -> str:
    return "inf" if value == "inf" else rounded_up(float(value))

"""Tables of results for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from privkt.cli.output import out
from privkt.evaluation.report.render import (
    canaries,
    learnt_from,
    left,
    main_arm,
    metrics_of,
    notices,
    protection,
    summaries,
)


def print_report(report: Mapping[str, Any]) -> None:
    """Scores, what was spent and what crossed, a client at a time."""
    for name, client in report["clients"].items():
        if len(report["clients"]) > 1:
            out.print(f"\n[bold]client {escape(name)}[/bold]")
        _scores(client)
        _spent(client)
        planted = canaries(client)
        if planted:
            repeated = planted["repeated"]
            said = "none came out" if repeated == 0 else f"[red]{repeated} came out[/red]"
            out.print(f"planted names and numbers: {planted['total']}, {said}")
            if planted["absent"]:
                out.print(
                    f"[red]{planted['absent']} of them do not stand in the private texts and could not come out[/red]"
                )
    if report["epsilon_statement"]:
        out.print(report["epsilon_statement"])
    out.print(f"what crossed: {_crossed(report['crossed'])}, all of it in outbound/")


def _crossed(crossed: Sequence[Mapping[str, Any]]) -> str:
    """Rows of texts in their messages, messages without rows by their kind, and all their bytes."""
    total = sum(row["bytes"] for row in crossed)
    found = []
    texts = [row for row in crossed if row["message"] == "texts"]
    if texts:
        found.append(f"{_counted(sum(row['rows'] for row in texts), 'row')} in {_counted(len(texts), 'message')}")
    others = Counter(row["message"] for row in crossed if row["message"] != "texts")
    found += [_counted(number, kind.replace("-", " ")) for kind, number in others.items()]
    return f"{' and '.join(found) or 'nothing'}, {total:,} bytes"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _scores(client: Mapping[str, Any]) -> None:
    scores, main = summaries(client), main_arm(client)
    if not scores:
        out.print("no evaluation data: nothing was scored" if client["seeds"] else "nothing was scored yet")
        return
    metrics = metrics_of(scores)
    amounts = [learnt_from(client, arm) for arm in scores]
    table = Table(
        "what was compared",
        *(m.replace("_", " ") for m in metrics),
        *(["learnt from"] if any(amounts) else []),
        "what another party saw is protected by",
        box=None,
        pad_edge=False,
    )
    for (arm, values), amount in zip(scores.items(), amounts, strict=True):
        said = protection(client, arm)
        style = "bold" if arm == main else ("dim" if said == "none" else "")
        cells = (str(values[m]) if m in values else "" for m in metrics)
        more = [escape(amount)] if any(amounts) else []
        table.add_row(escape(arm), *cells, *more, escape(said), style=style)
    out.print(table)
    for said in notices(client):
        out.print(f"[yellow]{escape(said)}[/yellow]")
    if client["held_out_rows"] is not None:
        out.print(f"scored on {client['held_out_rows']} held-out rows")


def _spent(client: Mapping[str, Any]) -> None:
    for training in client["trainings"]:
        out.print(f"{escape(training['purpose'])}: [bold]{escape(training['guarantee'])}[/bold]")
        if "noise_multiplier" in training:
            taken = "" if training["taken"] is None else f", {training['taken']} taken"
            out.print(
                f"  noise multiplier {training['noise_multiplier']:.4f}, sampling rate "
                f"{training['sampling_rate']:.4g}, {training['steps']} steps planned{taken}"
            )
    ledger = client["ledger"]
    out.print(f"{escape(ledger['statement'])}; left: epsilon = {left(ledger)}")
    if ledger["spent"]["infinite"]:
        out.print("[red]something unprotected left this data set: its total epsilon is infinite[/red]")

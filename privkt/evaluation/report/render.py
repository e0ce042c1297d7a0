"""`report.json` and `report.html` in a run's private half."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.charts import arms_chart
from privkt.evaluation.report.summary import MetricSummary
from privkt.privacy.guarantee import rounded_up
from privkt.runtime.files import write_file, write_json

NOT_PRIVATE_MARK = "not private"


def write_report(path: Path | str) -> tuple[Path, Path]:
    """Writes both files anew and returns (report.html, report.json). Raises RefusedInput as `build_report` does."""
    report = build_report(path)
    private = Path(path) / "private"
    html, values = private / "report.html", private / "report.json"
    write_json(values, report)
    write_file(html, render_html(report).encode())
    return html, values


def render_html(report: Mapping[str, Any]) -> str:
    """The page: self-contained, no script, no outside asset."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("privkt.evaluation.report", "."), autoescape=True, trim_blocks=True
    )
    shown = {**report, "clients": {name: _client(client) for name, client in report["clients"].items()}}
    shown["scale_note"] = (
        "Every arm trains the same small model from the same seeds. "
        "It is scored here, on the private side, and nothing of it crosses."
    )
    return environment.get_template("template.html.j2").render(report=shown)


def summaries(client: Mapping[str, Any]) -> dict[str, dict[str, MetricSummary]]:
    """A client's scores as `MetricSummary`s again."""
    return {
        arm: {metric: MetricSummary(v["mean"], v["deviation"], v["seeds"]) for metric, v in metrics.items()}
        for arm, metrics in client["scores"].items()
    }


def metrics_of(scores: Mapping[str, Mapping[str, MetricSummary]]) -> list[str]:
    """Every metric, in order of first appearance."""
    return list(dict.fromkeys(metric for metrics in scores.values() for metric in metrics))


def canaries(client: Mapping[str, Any]) -> dict[str, float] | None:
    """How many planted strings came out, over all seeds and sets of texts; None when none were planted."""
    found = [
        counts
        for notes in client["notes"].values()
        for counts in (notes.get("overlap") or {}).values()
        if isinstance(counts, dict) and "canaries" in counts
    ]
    if not found:
        return None
    return {"total": max(c["canaries"] for c in found), "repeated": max(c["canaries_repeated"] for c in found)}


def _client(client: Mapping[str, Any]) -> dict[str, Any]:
    scores = summaries(client)
    metrics = metrics_of(scores)
    ledger, planted = client["ledger"], canaries(client)
    charged = client["trainings"][0] if client["trainings"] else None
    return {
        **client,
        "metrics": metrics,
        "chart": arms_chart(scores, metrics[0], [a for a in scores if NOT_PRIVATE_MARK in a]) if metrics else "",
        "score_rows": [
            {
                "arm": arm,
                "final": arm == "FDKT",
                "values": [str(scores[arm][m]) if m in scores[arm] else "" for m in metrics],
                "guarantee": what_crossed(arm, charged),
            }
            for arm in scores
        ],
        "trainings": [_training(t) for t in client["trainings"]],
        "guarantee": charged["guarantee"] if charged else "",
        "ledger": {
            **ledger,
            "spent_text": _pair(ledger["spent"]),
            "left_text": _pair(ledger["left"]),
            "cap_text": _pair(ledger["cap"]),
        },
        "planted": planted,
        "notes": _notes(client["first_notes"]),
    }


def what_crossed(arm: str, charged: Mapping[str, Any] | None) -> str:
    """What protects the texts that another party saw for an arm."""
    if arm == "private data alone":
        return "nothing crossed"
    if NOT_PRIVATE_MARK in arm:
        return "none"
    if "without demonstrations" in arm:
        return "nothing about records crossed"
    return f"ε = {_number(charged['epsilon'])}" if charged else ""


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    declared = training["declared"]
    other = training["replace_one_epsilon"]
    return {
        **training,
        "epsilon_text": _number(training["epsilon"]),
        "replace_one_text": "not stated" if other is None else rounded_up(other),
        "delta_text": f"{training['delta']:.3g}",
        "noise_multiplier": training.get("noise_multiplier", float("nan")),
        "sampling_rate": training.get("sampling_rate", float("nan")),
        "noise_per_coordinate": declared.get("noise_per_coordinate", float("nan")),
    }


def _number(epsilon: float | str) -> str:
    return "∞" if epsilon == "inf" else rounded_up(float(epsilon))


def _pair(spend: Mapping[str, Any]) -> str:
    return f"ε = {_number(spend['epsilon'])}, δ = {spend['delta']:.3g}"


def _notes(notes: Mapping[str, Any]) -> dict[str, str]:
    """Notes as one line each; nested mappings read 'name: value'."""
    return {key: line for key, value in notes.items() if (line := _line(value))}


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = (f"{str(k).replace('_', ' ')}: {_line(v)}" for k, v in value.items())
        return "; ".join(part for part in parts if part[-2:] != ": ")
    if isinstance(value, list | tuple):
        return ", ".join(_line(v) for v in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)

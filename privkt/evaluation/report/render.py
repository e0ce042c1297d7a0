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
from privkt.privacy.ledger import Cap, Left, Places, Spent
from privkt.runtime.files import write_file, write_json

# Notes that have a place of their own on the page.
_PLACED = ("statement", "order", "arms", "main")


def write_report(path: Path | str, report: Mapping[str, Any] | None = None) -> tuple[Path, Path]:
    """Writes both files anew and returns (report.html, report.json). Raises RefusedInput as `build_report` does."""
    if report is None:
        report = build_report(path)
    private = Path(path) / "private"
    html, values = private / "report.html", private / "report.json"
    write_json(values, report)
    write_file(html, render_html(report).encode())
    return html, values


def render_html(report: Mapping[str, Any]) -> str:
    """The page: self-contained, no script, no outside asset."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("privkt.evaluation.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"words": _words, "cell": _cell}
    environment.tests["grid"] = _is_grid
    clients = {name: _client(client) for name, client in report["clients"].items()}
    return environment.get_template("template.html.j2").render(report={**report, "clients": clients})


def summaries(client: Mapping[str, Any]) -> dict[str, dict[str, MetricSummary]]:
    """A client's scores as `MetricSummary`s again."""
    return {
        arm: {metric: MetricSummary(v["mean"], v["deviation"], v["seeds"]) for metric, v in metrics.items()}
        for arm, metrics in client["scores"].items()
    }


def metrics_of(scores: Mapping[str, Mapping[str, MetricSummary]]) -> list[str]:
    """Every metric, in order of first appearance."""
    return list(dict.fromkeys(metric for metrics in scores.values() for metric in metrics))


def first_notes(client: Mapping[str, Any]) -> Mapping[str, Any]:
    """The notes of the first seed that ended."""
    return next(iter(client["notes"].values()), {})


def main_arm(client: Mapping[str, Any]) -> str | None:
    """The method's own arm, the others being its baselines."""
    return first_notes(client).get("main")


def canaries(client: Mapping[str, Any]) -> dict[str, int] | None:
    """How many planted strings came out, the most over seeds and sets of texts; None when none were planted."""
    found = [
        counts
        for notes in client["notes"].values()
        for counts in (notes.get("overlap") or {}).values()
        if isinstance(counts, Mapping) and "canaries" in counts
    ]
    if not found:
        return None
    return {
        "total": int(max(c["canaries"] for c in found)),
        "repeated": int(max(c["canaries_repeated"] for c in found)),
        "absent": int(max(c["canaries"] - c.get("canaries_in_the_data", c["canaries"]) for c in found)),
    }


def protection(client: Mapping[str, Any], arm: str) -> str:
    """What protects the texts that another party saw for an arm; empty when the method does not say."""
    said = first_notes(client).get("arms", {}).get(arm, {}).get("protection", "")
    if said != "release":
        return said
    return f"ε = {number(client['trainings'][0]['epsilon'])}" if client["trainings"] else ""


def learnt_from(client: Mapping[str, Any], arm: str) -> str:
    """How much an arm's model learnt from, for the first seed; empty when the method does not say."""
    return str(first_notes(client).get("arms", {}).get(arm, {}).get("learnt_from", ""))


def notices(client: Mapping[str, Any]) -> list[str]:
    """What a reader of the scores must know beside them: arms that were not measured, and a method's own warning."""
    notes = first_notes(client)
    missing = notes.get("not_measured") or {}
    reasons = missing.items() if isinstance(missing, Mapping) else ((arm, "") for arm in missing)
    found = [f"not measured: {arm}" + (f" ({why})" if why else "") for arm, why in reasons]
    return found + ([str(notes["warning"])] if notes.get("warning") else [])


def number(epsilon: float | str) -> str:
    """An epsilon as people read it, rounded up."""
    return "∞" if epsilon == "inf" else rounded_up(float(epsilon))


def left(ledger: Mapping[str, Any]) -> str:
    """What a ledger still allows, rounded down."""
    return "∞" if ledger["left"]["epsilon"] == "inf" else _left(ledger).said[0]


def _left(ledger: Mapping[str, Any]) -> Left:
    return Left(float(ledger["left"]["epsilon"]), ledger["left"]["delta"], _spent(ledger).places)


def _spent(ledger: Mapping[str, Any]) -> Spent:
    said = ledger["spent"]
    epsilon, delta = float(said["epsilon"]), said["delta"]
    places = Places.of(Cap(**ledger["cap"]), epsilon, delta)
    return Spent(epsilon, delta, said["infinite"], ledger["filter"], places)


def _ledger(ledger: Mapping[str, Any]) -> dict[str, Any]:
    spent = _spent(ledger)
    assert spent.places is not None
    epsilon, delta = ("∞" if said == "inf" else said for said in spent.said)
    return {
        **ledger,
        "spent_text": f"ε = {epsilon}, δ = {delta}",
        "spent_epsilon": epsilon,
        "spent_delta": delta,
        "left_text": f"ε = {left(ledger)}, δ = {_left(ledger).said[1]}",
        "cap_text": "ε = {}, δ = {}".format(*Cap(**ledger["cap"]).said(spent.places)),
    }


def _client(client: Mapping[str, Any]) -> dict[str, Any]:
    scores = summaries(client)
    metrics = metrics_of(scores)
    main = main_arm(client)
    open_arms = [arm for arm in scores if protection(client, arm) == "none"]
    return {
        **client,
        "metrics": metrics,
        "chart": arms_chart(scores, metrics[0], main=main, not_private=open_arms) if metrics else "",
        "score_rows": [
            {
                "arm": arm,
                "main": arm == main,
                "open": arm in open_arms,
                "values": [str(scores[arm][m]) if m in scores[arm] else "" for m in metrics],
                "learnt_from": learnt_from(client, arm),
                "protection": protection(client, arm),
            }
            for arm in scores
        ],
        "any_learnt_from": any(learnt_from(client, arm) for arm in scores),
        "trainings": [_training(t) for t in client["trainings"]],
        "ledger": _ledger(client["ledger"]),
        "planted": canaries(client),
        "unprotected": first_notes(client).get("epsilon") == "inf",
        "first_notes": _filled({k: v for k, v in first_notes(client).items() if k not in _PLACED}),
    }


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    other = training["replace_one_epsilon"]

    def shown(value: Any, form: str) -> str:
        return "" if value is None else format(value, form)

    return {
        **training,
        "epsilon_text": number(training["epsilon"]),
        "replace_one_text": "not stated" if other is None else number(other),
        "delta_text": rounded_up(training["delta"], 3),
        "noise_text": shown(training.get("noise_multiplier"), ".4f"),
        "rate_text": shown(training.get("sampling_rate"), ".4g"),
        "per_coordinate_text": shown(training["declared"].get("noise_per_coordinate"), ".4f"),
        "taken_text": shown(training["taken"], "d"),
    }


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without empty parts, at any depth."""
    inner = {key: _filled(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in inner.items() if value not in ({}, [], "", None)}


def _is_grid(values: Mapping[str, Any]) -> bool:
    """Whether several mappings have the same plain entries, so that they are columns of one table."""
    columns = list(values.values())
    if len(columns) < 2 or not all(isinstance(c, Mapping) and c.keys() == columns[0].keys() for c in columns):
        return False
    return not any(isinstance(value, Mapping) for column in columns for value in column.values())


def _words(name: Any) -> str:
    return str(name).replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(v) for v in value)
    return str(value)

"""A run directory to `report.json` values: nothing is computed here that the run or its ledgers do not hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import privkt
from privkt.config import ClientConfig, RunConfig
from privkt.contracts import Outcome, PublicFacts, TransferMethod
from privkt.evaluation.report.summary import over_seeds
from privkt.plugins import get_manager
from privkt.privacy import Budget, Ledger, default_delta
from privkt.privacy.guarantee import rounded_up
from privkt.runtime.accounts import is_of_run
from privkt.runtime.cards import planned, replace_one_epsilon
from privkt.runtime.gate import read_manifest
from privkt.runtime.preflight import SERVER
from privkt.runtime.results import stored_outcomes
from privkt.runtime.run_directory import HELD_OUT, RunDirectory

FORMAT = 1


def build_report(path: Path | str) -> dict[str, Any]:
    """Everything the report shows, as JSON values.

    Guarantee: `trainings` of a client gives noise_multiplier, sampling_rate, steps, delta and epsilon as charged; its
        `ledger.events`, with each training's `slack_delta` taken off its delta, let anybody account for them again with
        dp-accounting alone.
    Edge cases: an unfinished run has the outcomes that exist; `server` holds for each seed what its steps stored
        as JSON under "report", such as counts of answers that could not be read; of a method's notes, `main` names its
        own arm, `not_measured` tells arms without a score (a list, or each with its reason), `warning` is a sentence
        for whoever reads the scores, `epsilon` is "inf" where what is handed over has no guarantee, `held_out_rows` is
        how many evaluation rows it took, `arms[name].protection` says what protects the texts that were seen for it
        ("release": the first training's epsilon) and `arms[name].learnt_from` how much its model learnt from, in words.
    Raises: RefusedInput, when there is no run at `path` or its ledgers are missing or tampered with.
    """
    run = RunDirectory.open(path)
    config = run.config()
    manager = get_manager()
    method: type[TransferMethod] = manager.load("method", config.method)
    outcomes = stored_outcomes(run, method)
    made = method(method.Config.model_validate(config.method_config))
    events = run.events()
    held_out = {event["client"]: event["rows"] for event in events if event["event"] == HELD_OUT}
    clients = {
        client.name: _client(run, config, client, outcomes.get(client.name, {}), made)
        | {"held_out_rows": _scored(outcomes.get(client.name, {}), held_out.get(client.name))}
        for client in config.clients
    }
    not_covered: dict[str, None] = {}
    for client in clients.values():
        not_covered |= dict.fromkeys(client.pop("not_covered"))
    return {
        "format": FORMAT,
        "privkt": privkt.__version__,
        "method": config.method,
        "method_title": (method.__doc__ or config.method).strip().split("\n")[0].rstrip("."),
        "run_id": run.run_id,
        "created": events[0]["time"] if events else "",
        "finished": run.is_finished(),
        "seeds": list(config.seeds),
        "models": {
            role: {"backend": m.backend, "model": _public_model(m.options)} for role, m in config.models.items()
        },
        "clients": clients,
        "server": _server(run, config),
        "epsilon_statement": _together(clients),
        "crossed": [
            {
                "client": c.client,
                "step": c.step,
                "scope": c.scope,
                "message": c.message,
                "rows": c.rows,
                "bytes": c.size_bytes,
                "sha256": c.sha256,
            }
            for c in read_manifest(run)
        ],
        "not_covered": list(not_covered),
        "seconds": _seconds(events),
    }


def _client(
    run: RunDirectory, config: RunConfig, client: ClientConfig, outcomes: Mapping[int, Outcome], method: TransferMethod
) -> dict[str, Any]:
    not_covered = _not_covered(config, client, method)
    scores = over_seeds(outcome.scores for outcome in outcomes.values())
    ledger, trainings = _ledger(run, client)
    return {
        "data": {"name": client.data.name, "size": client.data.size, "labels": list(client.data.labels or ())},
        "trainings": trainings,
        "ledger": ledger,
        "scores": {
            arm: {metric: {"mean": s.mean, "deviation": s.deviation, "seeds": s.seeds} for metric, s in metrics.items()}
            for arm, metrics in scores.items()
        },
        "seeds": len(outcomes),
        "notes": {str(seed): dict(outcome.notes) for seed, outcome in outcomes.items()},
        "not_covered": not_covered,
    }


def _scored(outcomes: Mapping[int, Outcome], given: int | None) -> int | None:
    """How many rows arms were scored on: what the method says, or all that were given."""
    said = (outcome.notes.get("held_out_rows") for outcome in outcomes.values())
    return next((rows for rows in said if rows is not None), given)


def _server(run: RunDirectory, config: RunConfig) -> dict[str, Any]:
    found = {}
    for seed in config.seeds:
        with suppress(KeyError):  # this seed's server has not come so far, or counts nothing
            found[str(seed)] = run.state(SERVER, seed).load_json("report")
    return found


def _not_covered(config: RunConfig, client: ClientConfig, method: TransferMethod) -> list[str]:
    """What the method's plan says is not covered."""
    limits = client.budget or config.budget
    delta = default_delta(client.data.size) if limits.delta is None else limits.delta
    facts = PublicFacts(client.name, client.data.size, client.data.labels)
    budget = Budget(
        limits.epsilon, delta, unit=limits.unit, neighbouring=limits.neighbouring, reproduce=limits.reproduce
    )
    return list(method.plan(facts, budget).not_covered)


def _ledger(run: RunDirectory, client: ClientConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ledger = Ledger.open(client.data.name)
    ledger.verify(run.heads().get(client.data.name))
    spent, left, cap = ledger.spent(), ledger.left(), ledger.cap
    trainings = []
    bodies = [entry.body for entry in ledger.entries() if entry.kind == "charge"]
    for charge, event, body in zip(ledger.charges(), ledger.events(), bodies, strict=True):
        if not is_of_run(body["run_id"], run.run_id):
            continue
        guarantee = charge.planned
        for entry in planned(event, guarantee):
            trainings.append(
                {
                    "purpose": body["purpose"],
                    "unit": str(guarantee.unit),
                    "neighbouring": str(guarantee.neighbouring),
                    "replace_one_epsilon": replace_one_epsilon(guarantee),
                    "slack_delta": body["slack_delta"],
                    "declared": body["declared"],
                    "taken": ledger.status(charge.id).taken,
                    "guarantee": str(guarantee),
                    **entry,
                }
            )
    return {
        "name": ledger.name,
        "statement": ledger.statement(),
        "spent": {
            "epsilon": _finite(math.inf if spent.infinite else spent.epsilon),
            "delta": spent.delta,
            "infinite": spent.infinite,
        },
        "left": {"epsilon": _finite(left.epsilon), "delta": left.delta},
        "cap": {"epsilon": cap.epsilon, "delta": cap.delta},
        "filter": spent.filter,
        "charges": len(bodies),
        "head": ledger.head(),
        "events": [body["event"] for body in bodies if is_of_run(body["run_id"], run.run_id)],
    }, trainings


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else "inf"


def _public_model(options: Mapping[str, Any]) -> str:
    return Path(str(options.get("model", ""))).name


def _together(clients: Mapping[str, Mapping[str, Any]]) -> str:
    spent = [c["ledger"]["spent"]["epsilon"] for c in clients.values()]
    if len(spent) < 2:
        return ""
    if "inf" in spent:
        return "Over all clients: epsilon is infinite for the data sets that say so."
    return (
        f"Over all clients: epsilon = {rounded_up(max(spent))} (the maximum) if nobody has data at two of them, which "
        f"cannot be checked; otherwise up to {rounded_up(sum(spent))} (the sum)."
    )


def _seconds(events: list[dict[str, Any]]) -> dict[str, float]:
    """What each step took, with all of its attempts, but for those that were killed before they could say so."""
    found: dict[str, float] = {}
    for event in events:
        if "step" in event and "seconds" in event:
            name = f"{event['site']}: {event['step']}"
            found[name] = found.get(name, 0.0) + float(event["seconds"])
    return found

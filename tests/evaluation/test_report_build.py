"""report.json says what the ledgers hold: each training's numbers together, and enough to account for them again."""

import json
import subprocess
import sys

import pytest

from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.render import write_report
from privkt.evaluation.report.summary import MetricSummary, over_seeds
from privkt.privacy import LedgerTampered, RefusedInput

TOGETHER = ("noise_multiplier", "sampling_rate", "steps", "delta", "epsilon")

# Nothing of privkt is imported here: the classes and fields are dp-accounting's own.
ALONE = """
import json, sys
import dp_accounting as dpa
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

def event(values):
    rest = {key: value for key, value in values.items() if key != "class"}
    if "event" in rest:
        rest["event"] = event(rest["event"])
    if "events" in rest:
        rest["events"] = [event(part) for count, part in rest["events"] for _ in range(count)]
    return getattr(dpa, values["class"])(**rest)

client = json.load(open(sys.argv[1]))["clients"]["a"]
(training,) = client["trainings"]
(stored,) = client["ledger"]["events"]
accountant = PLDAccountant(dpa.NeighboringRelation.ADD_OR_REMOVE_ONE)
accountant.compose(event(stored))
delta = training["delta"] - training["slack_delta"]
assert not any(name.startswith("privkt") for name in sys.modules)
print(json.dumps([training["epsilon"], accountant.get_epsilon(delta)]))
"""


def test_each_training_has_its_numbers_together(written):
    run = written()
    noise, rate, steps, guarantee = run.charge()
    run.end(scores={"FDKT": {"accuracy": 0.5}})
    report = build_report(run.path)
    (training,) = report["clients"]["a"]["trainings"]
    assert [training[key] for key in TOGETHER] == [noise, rate, steps, guarantee.delta, guarantee.epsilon]
    assert training["taken"] == steps
    assert training["replace_one_epsilon"] == guarantee.replace_one_epsilon
    assert report["clients"]["a"]["ledger"]["spent"]["epsilon"] == pytest.approx(guarantee.epsilon, rel=1e-12)


def test_planned_epsilon_agrees_with_dp_accounting_alone(written):
    run = written()
    run.charge()
    run.end()
    _, values = write_report(run.path)
    command = [sys.executable, "-c", ALONE, str(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    planned, again = json.loads(done.stdout)
    assert 2.9 < planned <= 3.0
    assert again == pytest.approx(planned, abs=1e-3)


def test_charges_of_other_runs_count_but_are_not_listed(written):
    run = written()
    run.charge(run_id="another", target=2.0)
    run.charge()
    client = build_report(run.path)["clients"]["a"]
    assert len(client["trainings"]) == len(client["ledger"]["events"]) == 1
    assert client["ledger"]["charges"] == 2
    assert client["ledger"]["spent"]["epsilon"] > 4.9


def test_a_forced_release_makes_everything_infinite(written):
    run = written()
    run.charge()
    run.force()
    report = json.loads(json.dumps(build_report(run.path), allow_nan=False))
    client = report["clients"]["a"]
    assert [t["epsilon"] for t in client["trainings"]][1] == "inf"
    assert client["trainings"][1]["mechanism"] == "none"
    assert client["ledger"]["spent"]["epsilon"] == "inf"
    assert client["ledger"]["spent"]["infinite"] is True


def test_several_clients_are_stated_as_maximum_or_sum(written):
    run = written(clients=("a", "b"))
    run.charge("a", target=2.0)
    run.charge("b", target=3.0)
    statement = build_report(run.path)["epsilon_statement"]
    assert statement.startswith("Over all clients: epsilon = 3 (the maximum) if nobody has data at two of them")
    assert statement.endswith("otherwise up to 5 (the sum).")
    run.force("b")
    assert "infinite" in build_report(run.path)["epsilon_statement"]


def test_scores_are_summed_up_over_seeds(written):
    run = written(seeds=(0, 1, 2))
    for seed, value in enumerate((0.5, 0.6, 0.7)):
        run.end(seed=seed, scores={"FDKT": {"accuracy": value}, "private data alone": {"accuracy": 0.4}})
    client = build_report(run.path)["clients"]["a"]
    assert client["seeds"] == 3
    found = client["scores"]["FDKT"]["accuracy"]
    assert (found["mean"], found["deviation"], found["seeds"]) == (pytest.approx(0.6), pytest.approx(0.1), 3)


def test_an_unfinished_run_is_reported_as_far_as_it_came(written):
    run = written(seeds=(0, 1))
    run.charge()
    run.end(seed=0, scores={"FDKT": {"accuracy": 0.5}})
    report = build_report(run.path)
    assert not report["finished"]
    assert report["clients"]["a"]["seeds"] == 1
    run.finish()
    again = build_report(run.path)
    assert again["finished"]
    assert again["seconds"] == {"a: learn": 1.5}


def test_a_step_took_what_all_of_its_attempts_took(written):
    run = written()
    for what, seconds in (("interrupted", 0.25), ("failed", 2.0)):
        run.run.event("began", site="a", step="learn", scope="seed-0")
        run.run.event(what, site="a", step="learn", scope="seed-0", seconds=seconds)
    run.run.event("failed", seconds=9.0)  # the checks before the first step
    run.finish()
    assert build_report(run.path)["seconds"] == {"a: learn": 3.75}


def test_what_is_not_covered_is_listed_once(written):
    run = written(clients=("a", "b"))
    lines = build_report(run.path)["not_covered"]
    assert any("chosen by looking at results on the private data" in line for line in lines)
    assert len(lines) == len(set(lines))


def test_models_are_named_without_folders_of_this_machine(written):
    run = written()
    assert build_report(run.path)["models"]["slm"] == {"backend": "transformers", "model": "slm-model"}
    html, values = write_report(run.path)
    assert "/home/somebody" not in html.read_text() + values.read_text()
    assert html.stat().st_mode & 0o077 == values.stat().st_mode & 0o077 == 0


def test_a_ledger_that_lost_its_head_is_refused(written):
    run = written()
    run.charge()
    run.run.keep_head("data-a", "0" * 64)
    with pytest.raises(LedgerTampered):
        build_report(run.path)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match="holds no run"):
        build_report(tmp_path)


def test_summaries_are_means_and_sample_deviations():
    found = over_seeds([{"b": {"f": 1.0}, "a": {"f": 0.0}}, {"a": {"f": 1.0, "g": 2.0}}])
    assert list(found) == ["b", "a"]
    assert found["a"] == {"f": MetricSummary(0.5, pytest.approx(0.7071068), 2), "g": MetricSummary(2.0, 0.0, 1)}
    assert str(found["a"]["g"]) == "2.000"
    assert str(MetricSummary(0.5, 0.25, 2)) == "0.500 ± 0.250"
    assert over_seeds([]) == {}
    with pytest.raises(ValueError, match="not a finite number"):
        over_seeds([{"a": {"f": float("nan")}}])

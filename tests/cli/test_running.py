"""plan, run, compare, predict, show, report and budget over one tiny run of two clients and two seeds."""

import json
import shutil

import pytest

from privkt.cli.output import visible
from privkt.cli.tables import _crossed
from privkt.privacy.spending import Left

LABELS = {"negative", "positive"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, house_type):
    """A finished comparison: (house, state folder, what the command said)."""
    folder = tmp_path_factory.mktemp("finished")
    house = house_type(folder, model)
    house.raw["clients"] = [house.client("a"), house.client("b", 100)]
    house.raw["seeds"] = [0, 1]
    house.raw["fdkt"]["baselines"] = ["private"]
    house.save()
    state = tmp_path_factory.mktemp("finished-state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVKT_STATE", str(state))
        from privkt.cli.running import execute
        from privkt.config import load_config

        execute(load_config(house.config), house.run)
    return house, state


@pytest.fixture
def done(finished, tmp_path, monkeypatch):
    """The finished house, with a copy of its ledgers in place."""
    house, state = finished
    monkeypatch.setenv("PRIVKT_STATE", str(shutil.copytree(state, tmp_path / "state")))
    return house


def test_plan_says_what_a_run_spends_asks_and_sends(house, cli):
    said = cli("plan", house.save())
    assert said.code == 0
    for fact in (
        "epsilon = 8, delta = 0.001, record level, zero-out (replace-one: epsilon = ",
        "sampling rate 0.5, 4 steps, noise per coordinate 0.0",
        "asked of the large model, for each seed: 8 requests",
        "crosses: client to server: at most 8 synthetic texts",
        "not covered: settings chosen by looking at results on the private data",
        "warning: 4 steps are few",
        "left in the ledger before this run: epsilon 8, delta 0.001",
    ):
        assert fact in said.out
    values = cli("plan", house.config, "--json").json
    (training,) = values["a"]["plan"]["trainings"]
    assert {"noise_multiplier", "sampling_rate", "steps", "delta", "noise_per_coordinate"} <= set(training)
    assert values["a"]["left"] == {"epsilon": 8.0, "delta": 1e-3}


def test_a_plan_says_no_more_is_left_than_there_is(house, cli, monkeypatch):
    monkeypatch.setattr("privkt.runtime.accounts.left_of", lambda *_, **__: Left(7.99999, 0.00099999))
    assert "left in the ledger before this run: epsilon 7.999, delta 0.000999\n" in cli("plan", house.save()).out


def test_show_prints_scores_spending_and_what_crossed(done, cli):
    said = cli("show", done.run)
    assert said.code == 0
    for fact in (
        "client a",
        "client b",
        "private data alone",
        "nothing crossed",
        "FDKT",
        "ε = 8",
        "4 steps planned, 4",
    ):
        assert fact in said.out
    assert "otherwise up to 16 (the sum)" in said.out
    assert "what crossed: 32 rows in 4 messages," in said.out
    report = cli("show", done.run, "--json").json
    assert report == json.loads((done.run / "private" / "report.json").read_text())
    assert set(report["clients"]["a"]["scores"]) == {"private data alone", "FDKT"}


@pytest.mark.parametrize(
    ("crossed", "said"),
    [
        ([("texts", 200, 23_848)], "200 rows in 1 message, 23,848 bytes"),
        ([("texts", 1, 10), ("texts", 2, 20)], "3 rows in 2 messages, 30 bytes"),
        ([("adapter", 1, 619_968)], "1 adapter, 619,968 bytes"),
        (
            [("soft-prompt", 1, 5), ("soft-prompt", 1, 5), ("texts", 1, 7)],
            "1 row in 1 message and 2 soft prompts, 17 bytes",
        ),
        ([], "nothing, 0 bytes"),
    ],
)
def test_what_crossed_is_counted_by_what_it_is(crossed, said):
    rows = [{"message": message, "rows": rows, "bytes": size} for message, rows, size in crossed]
    assert _crossed(rows) == said


def test_show_prints_the_texts_that_crossed(done, cli):
    rows = cli("show", done.run, "--texts", "--json").json
    assert len(rows) == 32
    assert {row["label"] for row in rows} == {"negative", "positive"}
    assert {row["client"] for row in rows} == {"a", "b"}
    said = cli("show", done.run, "--texts")
    assert said.code == 0
    lines = [line for line in said.out.split("\n") if line.startswith("  ")]
    assert lines == [f"  [{row['label']}] {visible(row['text'])}" for row in rows]


def test_show_prints_the_columns_that_crossed_beside_the_texts(done, cli, monkeypatch):
    from privkt.contracts import Texts
    from privkt.runtime import wire

    counts = Texts(("votes for set 0", "votes for set 1"), None, {"value": ("23", "32")})
    monkeypatch.setattr(wire, "decode", lambda data: counts)
    said = cli("show", done.run, "--texts")
    assert "  votes for set 0; value: 23\n  votes for set 1; value: 32\n" in said.out
    assert cli("show", done.run, "--texts", "--json").json[1]["columns"] == {"value": "32"}


def test_show_refuses_texts_that_are_not_those_that_crossed(done, cli):
    file = next((done.run / "outbound" / "a").glob("*.arrow"))
    kept = file.read_bytes()
    for data, got in ((kept + b"more", "others"), (b"", "none")):
        file.write_bytes(data)
        said = cli("show", done.run, "--texts")
        file.write_bytes(kept)
        assert said.code == 2
        assert (
            f"outbound/a/{file.name}: must be the bytes that crossed, by the manifest's SHA-256, got {got}" in said.err
        )


def test_report_writes_both_files_again(done, cli):
    for name in ("report.html", "report.json"):
        (done.run / "private" / name).unlink()
    said = cli("report", done.run)
    assert said.code == 0
    assert said.out.split() == [str(done.run / "private" / n) for n in ("report.html", "report.json")]
    page = (done.run / "private" / "report.html").read_text()
    assert "Client a" in page
    assert "Client b" in page


@pytest.mark.parametrize("form", ["jsonl", "csv", "txt"])
def test_predict_labels_texts(done, cli, tmp_path, form):
    texts = ["the soup was cold, and late", "quick and kind"]
    path = tmp_path / f"new.{form}"
    path.write_text(
        {
            "jsonl": "".join(json.dumps({"text": t}) + "\n" for t in texts),
            "csv": "text\n" + "".join(f'"{t}"\n' for t in texts),
            "txt": "\n".join(texts),
        }[form]
    )
    said = cli("predict", done.run, path, "--client", "b")
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert len(lines) == 2
    assert {line["label"] for line in lines} <= LABELS
    assert all(0.5 <= line["probability"] <= 1 for line in lines)
    kept = tmp_path / "labels.jsonl"
    again = cli("predict", done.run, path, "--client", "b", "-o", kept)
    assert again.out == ""
    assert kept.read_text() == said.out


def test_predict_refuses_what_it_cannot_label(done, cli, tmp_path):
    new = tmp_path / "new.txt"
    new.write_text("cold")
    for arguments, message in [
        ((done.run, new), "the run has clients a, b; say whose model with --client"),
        ((done.run, new, "--client", "c"), "no client 'c' in this run; it has a, b"),
        ((tmp_path, new), "holds no run; start one with"),
        ((done.run, tmp_path / "none.txt", "--client", "a"), "no file at"),
    ]:
        said = cli("predict", *arguments)
        assert said.code == 2
        assert message in said.err


def test_budget_shows_every_ledger_and_its_entries(done, cli):
    said = cli("budget")
    assert said.code == 0
    assert "visits-a" in said.out
    assert "epsilon 8, delta 0.001" in said.out
    values = cli("budget", "--json").json
    assert [d["name"] for d in values["data_sets"]] == ["visits-a", "visits-b"]
    assert values["broken"] == {}
    entries = cli("budget", "show", "visits-a", "--json").json
    assert [e["kind"] for e in entries][:2] == ["opened", "charge"]
    assert entries[1]["guarantee"]["epsilon"] <= 8
    text = cli("budget", "show", "visits-a")
    assert "cap epsilon 8, delta 0.001, N = 48" in text.out
    assert "4 steps taken" in text.out
    assert f"head {entries[-1]['hash']}" in text.out


def test_a_finished_run_resumes_to_itself_and_its_folder_is_not_begun_again(done, cli):
    before = cli("budget", "show", "visits-a", "--json").json
    assert cli("run", "--resume", done.run).code == 0
    assert cli("budget", "show", "visits-a", "--json").json == before
    again = cli("run", done.config, "--output", done.run)
    assert again.code == 2
    assert f"run directory {done.run}: holds a finished run" in again.err
    assert "name another folder with --output" in again.err
    both = cli("run", "--resume", done.run, "--output", done.run)
    assert both.code == 2
    assert "--resume goes on in its own folder" in both.err
    neither = cli("run")
    assert neither.code == 2
    assert "give a config to start, or --resume DIR" in neither.err


def test_another_run_on_spent_data_is_refused_until_the_cap_is_raised(done, cli, tmp_path):
    said = cli("plan", done.config)
    assert said.code == 2
    assert "asked epsilon = 8" in said.err
    assert cli("budget", "raise", "visits-a", "--epsilon", "4", "--reason", "less").code == 2
    assert cli("budget", "raise", "visits-a", "--epsilon", "17", "--delta", "0.002", "--reason", " ").code == 2
    alone = cli("budget", "raise", "visits-a", "--epsilon", "16", "--reason", "a study that forgot delta")
    assert "left: epsilon = 8, delta = 0\nno delta is left" in alone.out
    assert "privkt budget raise visits-a --epsilon 16 --delta D" in alone.out
    raised = cli("budget", "raise", "visits-a", "--epsilon", "17", "--delta", "0.002", "--reason", "a second study")
    assert "left: epsilon = 9, delta = 0.001\n" in raised.out
    assert "no delta is left" not in raised.out
    assert raised.code == 0
    assert "of a cap of epsilon = 17" in raised.out
    assert "cap raised to epsilon 17, delta 0.002: a second study" in cli("budget", "show", "visits-a").out
    assert "ledger visits-b" in cli("plan", done.config).err
    missing = cli("budget", "show", "nothing")
    assert missing.code == 2
    assert "none was found" in missing.err


def test_a_broken_ledger_is_shown_beside_the_others(done, cli, tmp_path):
    ledgers = tmp_path / "state" / "ledgers"
    (ledgers / "visits-b.sqlite3").write_bytes(b"nonsense" * 100)
    for beside in ledgers.glob("visits-b.sqlite3-*"):
        beside.unlink()
    said = cli("budget")
    assert said.code == 0
    assert "visits-a" in said.out
    assert "visits-b: " in said.err
    assert list(cli("budget", "--json").json["broken"]) == ["visits-b"]


def test_compare_runs_every_baseline_it_can(house, cli):
    said = cli("compare", house.save(), "--output", house.run, "--seeds", "1")
    assert said.code == 0, said.err
    for arm in ("private data alone", "DP synthetic alone", "private + LLM without demonstrations", "FDKT"):
        assert arm in said.out
    assert "not measured: FDKT at eps = inf (not private)" in said.out
    notes = cli("show", house.run, "--json").json["clients"]["a"]["notes"]["0"]
    assert notes["not_measured"] == [
        "FDKT at eps = inf (not private)",
        "raw demonstrations (not private, upper bound)",
    ]
    assert cli("compare", house.config, "--resume", house.run, "--seeds", "1").code == 0
    other = cli("compare", house.config, "--resume", house.run, "--seeds", "2")
    assert other.code == 2
    assert "seeds" in other.err

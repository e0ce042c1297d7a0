"""The commands themselves: help, versions, lists, what they import, usage errors, review, forced and changed runs."""

import io
import subprocess
import sys

import pytest

import privkt
from privkt.privacy import Ledger


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["--version"], ["plugins"], ["plugins", "--json"], ["doctor", "--help"], ["budget"],
        ["budget", "--help"], ["run", "--help"], ["plan", "no-such-file.yaml"], ["show", "no-such-run"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_listing_and_helping_import_no_torch(arguments):
    program = (
        "import sys\nfrom privkt.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "bad = [name for name in ('torch', 'transformers', 'matplotlib', 'datasets') if name in sys.modules]\n"
        "print(*bad, file=sys.stderr)\nsys.exit(bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_version_and_help(cli):
    assert cli("--version").out == f"{privkt.__version__}\n"
    said = cli("--help")
    assert said.code == 0
    commands = ("quickstart", "plan", "run", "compare", "predict", "show", "report", "plugins", "doctor", "budget")
    assert all(command in said.out for command in commands)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["plan"], ["run", "--no-such-option"], ["compare", "c.yaml", "--seeds", "0"]]
)
def test_usage_errors_are_refused_input(cli, arguments):
    said = cli(*arguments)
    assert said.code == 2
    assert "Usage: privkt" in said.err


def test_plugins_are_listed_with_what_they_promise(cli):
    said = cli("plugins")
    assert said.code == 0
    for fact in ("fdkt", "transformers", "openai", "json", "privkt:fdkt"):
        assert fact in said.out
    values = cli("plugins", "--json").json
    assert {"privkt:fdkt", "privkt:transformers", "privkt:openai"} <= {p["identity"] for p in values["plugins"]}
    assert {p["status"] for p in values["plugins"] if p["identity"].startswith("privkt:")} == {"ok"}
    methods = cli("plugins", "--kind", "method", "--json").json["provided"]
    assert {m["kind"] for m in methods} == {"method"}
    assert all(m["guarantee"] for m in cli("plugins", "--kind", "mechanism", "--json").json["provided"])
    wrong = cli("plugins", "--kind", "methods")
    assert wrong.code == 2
    assert "--kind must be one of mechanism, method, backend, dataset, evaluator, got 'methods'" in wrong.err


def test_a_broken_plugin_is_shown_and_the_others_work(cli, monkeypatch):
    monkeypatch.setenv("PRIVKT_DISABLE_PLUGINS", "privkt:openai")
    from privkt.plugins import PluginManager

    monkeypatch.setattr("privkt.plugins.get_manager", PluginManager)
    said = cli("plugins")
    assert "privkt:openai: disabled" in said.out
    assert "fdkt" in said.out


def test_doctor_says_what_is_built_and_what_stops_a_run(cli, monkeypatch):
    said = cli("doctor")
    values = cli("doctor", "--json").json
    assert values["privkt"] == privkt.__version__
    assert values["libraries"]["dp-accounting"]
    assert values["problems"] == []
    assert said.code == 0
    assert "no problems found" in said.out
    monkeypatch.setenv("PRIVKT_KERNELS", "reference")
    told = cli("doctor")
    assert told.code == 1
    assert "problem: PRIVKT_KERNELS=reference is set: the Python reference runs" in told.out


# -- runs with a switch ---------------------------------------------------------------------------------------------


@pytest.fixture
def short_house(house):
    house.raw["fdkt"]["baselines"] = []
    return house


def answer(monkeypatch, word):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{word}\n"))


def test_a_reviewer_sees_the_texts_and_may_say_no(short_house, cli, monkeypatch):
    answer(monkeypatch, "n")
    said = cli("run", short_house.save(), "--output", short_house.run, "--review")
    assert said.code == 1
    assert "a is about to send texts, 8 rows" in said.out
    assert said.out.count("[negative] ") == 4
    assert all(c.isprintable() or c == "\n" for c in said.out)
    assert "the reviewer said no, and nothing crossed; the spend stays" in said.err
    assert not list((short_house.run / "outbound").rglob("*.arrow"))
    assert len(Ledger.open("visits-a").charges()) == 1
    answer(monkeypatch, "y")
    again = cli("run", "--resume", short_house.run, "--review")
    assert again.code == 0, again.err
    shown = [line for line in said.out.splitlines() if line.startswith("  [")]
    assert shown == [line for line in again.out.splitlines() if line.startswith("  [")]  # not drawn again
    assert len(Ledger.open("visits-a").charges()) == 1
    assert len(list((short_house.run / "outbound").rglob("*.arrow"))) == 1


def test_nobody_to_review_is_a_no(short_house, cli, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = cli("run", short_house.save(), "--output", short_house.run, "--review")
    assert said.code == 1
    assert "the reviewer said no" in said.err
    assert not list((short_house.run / "outbound").rglob("*.arrow"))


def test_control_characters_of_a_text_are_spelt_out():
    from privkt.cli.output import visible

    assert visible("warm\x1b[2K\r soup\u202e né") == "warm\\x1b[2K\\r soup\\u202e né"


def test_a_run_goes_on_with_changed_data_or_a_new_name_when_told(short_house, cli):
    short_house.raw["budget"] = {"epsilon": 4, "delta": 5e-4, "cap_epsilon": 8, "cap_delta": 1e-3}
    assert cli("run", short_house.save(), "--output", short_house.run).code == 0
    rows = short_house.rows()
    rows[0]["text"] += " at last"
    short_house.write_rows(short_house.file, rows)
    second = short_house.folder / "second"
    assert cli("run", short_house.config, "--output", second).code == 2
    said = cli("run", short_house.config, "--output", second, "--data-changed")
    assert said.code == 0, said.err
    ledger = Ledger.open("visits-a")
    assert [e.body["data_changed"] for e in ledger.entries() if e.kind == "charge"] == [False, True]
    assert 7.9 < ledger.spent().epsilon <= 8
    short_house.data["name"] = "visits-new"
    third = short_house.folder / "third"
    refused = cli("run", short_house.save(), "--output", third)
    assert refused.code == 2
    assert "already accounted for as visits-a" in refused.err
    assert cli("run", short_house.config, "--output", third, "--new-name-confirmed").code == 0
    assert [e.body["same_data_confirmed"] for e in Ledger.open("visits-new").entries() if e.kind == "charge"] == [True]


def test_force_lets_a_remote_model_see_private_text_for_an_infinite_spend(short_house, cli, server):
    model = {"backend": "openai", "base_url": f"http://127.0.0.1:{server()}/v1", "model": "m"}
    short_house.raw["models"]["local_llm"] = model
    refused = cli("run", short_house.save(), "--output", short_house.run)
    assert refused.code == 2
    assert "models.local_llm: is remote, and client 'a' would send it private text in clear" in refused.err
    said = cli("run", short_house.config, "--output", short_house.run, "--force")
    assert said.code == 0, said.err
    assert "something unprotected left this data set: its total epsilon is infinite" in said.out
    assert Ledger.open("visits-a").spent().infinite
    report = cli("show", short_house.run, "--json").json
    assert report["clients"]["a"]["ledger"]["spent"]["epsilon"] == "inf"
    assert "infinite" in (short_house.run / "private" / "report.html").read_text()
    assert cli("budget", "--json").json["data_sets"][0]["spent"]["epsilon"] == "inf"
    assert "infinite" in cli("budget").out

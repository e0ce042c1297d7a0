"""`privkt privatize` by the real command: what it says, what it writes, what it refuses, and how it goes on."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from privkt.plugins import MechanismSpec, get_manager, hookimpl
from privkt.privacy import Ledger
from privkt.privacy.ceiling import utility_ceiling
from privkt.privacy.guarantee import rounded_up

sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))  # the toy mechanism lives beside its own tests
from toy_tokens import WORDS, Toy, vocabulary

CANARY = "canary7f3a"
TEXTS = ["the visit was cold", "the visit was cold", f"Anna {CANARY} was rude", "", "1 2 3, kind."]


@pytest.fixture(autouse=True)
def toy():
    """The toy mechanism under a name of its own, for as long as the test."""

    class Plugin:
        @hookimpl
        def privkt_mechanisms(self):
            return (
                MechanismSpec(
                    "toy", "toy_tokens:Toy", "A toy.", guarantee="pure", unit="token", neighbouring="local", proof="x"
                ),
            )

    get_manager(reload=True).register(Plugin(), distribution="toys", entry="toys")
    yield
    get_manager(reload=True)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder with texts and vectors; returns the options that every call needs."""
    monkeypatch.chdir(tmp_path)
    rows = [{"note": text, "case": f"{CANARY}-{i}"} for i, text in enumerate(TEXTS)]
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, vocabulary().vectors.tolist(), strict=False)
    ]
    Path("vectors.txt").write_text("\n".join(lines) + "\n")
    return ["notes.jsonl", "--text", "note", "--name", "notes", "--mechanism", "toy", "--vectors", "vectors.txt"]


def test_a_file_becomes_a_noisy_file(notes, cli):
    said = cli("privatize", *notes, "--id", "case", "--epsilon", 2, "--k-max", 4, "--output", "noisy.jsonl")
    assert said.code == 0, said.err
    lines = [json.loads(line) for line in Path("noisy.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["text"]] * len(TEXTS)
    ledger = Ledger.open("notes")
    (charge,) = ledger.charges()
    assert f"charged: {charge.planned}" in said.out
    assert "nominal epsilon 2 a token" in said.out
    assert "texts are longer than k_max = 4" in said.err
    assert [e.kind for e in ledger.entries()] == ["opened", "charge", "stored", "sent"]
    card = Path("noisy.jsonl.card.json").read_text()
    assert json.loads(card)["statement"] == str(charge.planned)
    assert CANARY not in card + said.out + said.err
    assert Path("noisy.jsonl.private").stat().st_mode & 0o077 == 0
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    again = cli("privatize", *notes, "--id", "case", "--epsilon", 2, "--k-max", 4, "--output", "noisy.jsonl")
    assert again.code == 0, again.err
    assert {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()} == before
    assert len(ledger.charges()) == 1


def test_a_plan_spends_and_writes_nothing(notes, cli):
    before = sorted(Path().rglob("*"))
    said = cli("privatize", *notes, "--epsilon", 2, "--plan")
    assert said.code == 0, said.err
    assert said.out.endswith("nothing was spent\n")
    assert sorted(Path().rglob("*")) == before
    found = cli("privatize", *notes, "--epsilon", "2x3,1", "--k-max", 4, "--plan", "--json").json
    assert found["document"]["pure_epsilon"] == pytest.approx(3.5, rel=1e-5)
    assert found["charged"]["guarantee"]["neighbouring"] == "zero-out"
    assert cli("budget").out.startswith("no data set has a ledger yet")


def test_a_large_epsilon_of_a_text_is_warned_of_before_it_is_charged(notes, cli, monkeypatch):
    from privkt.runtime.privatisation import PrivateTexts

    small, large = ("--k-max", 4), ("--k-max", 24)
    warning = r"warning: epsilon = \S+ for a whole text protects against little: e\^\S+ bounds how much more likely one"
    assert not re.search(warning, cli("privatize", *notes, "--epsilon", 2, *small, "--plan").err)
    assert re.search(warning, cli("privatize", *notes, "--epsilon", 2, *large, "--plan").err)
    (said,) = cli("privatize", *notes, "--epsilon", 2, *large, "--plan", "--json").json["warnings"]
    assert said.startswith("epsilon = 24 for a whole text protects")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PrivateTexts, "privatise", stop)
    assert re.search(warning, cli("privatize", *notes, "--epsilon", 2, *large, "--output", "noisy.jsonl").err)


def test_a_document_s_budget_is_kept(notes, cli):
    found = cli(
        "privatize", *notes, "--epsilon", 3, "--level", "document", "--k-max", 4, "--output", "noisy.jsonl", "--json"
    ).json  # fmt: skip
    assert 2.9 < found["charged"]["guarantee"]["epsilon"] <= 3
    assert Ledger.open("notes").spent().epsilon == found["charged"]["guarantee"]["epsilon"]


def test_ids_leave_only_when_they_are_asked_for(notes, cli):
    said = cli("privatize", *notes, "--id", "case", "--epsilon", 2, "--output", "noisy.jsonl", "--keep-ids")
    assert "ids as they are, which no guarantee covers" in said.err
    lines = [json.loads(line) for line in Path("noisy.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"{CANARY}-{i}" for i in range(len(TEXTS))]


def test_kept_words_leave_only_by_force(notes, cli):
    Path("stop.txt").write_text("the\nwas\n")
    arguments = (*notes, "--epsilon", 2, "--keep-words", "stop.txt", "--output", "noisy.jsonl")
    planned = cli("privatize", *arguments, "--plan")
    assert "nothing is promised: no privacy guarantee (epsilon = inf)" in planned.out
    assert "words are kept verbatim" in planned.out
    assert not re.search("pure|costs|survives", planned.out)
    found = cli("privatize", *arguments, "--plan", "--json").json
    assert (found["token"], found["document"], found["unchanged"], found["ceiling"]) == (None, None, None, {})
    refused = cli("privatize", *arguments)
    assert refused.code == 2
    assert "leaves only by force" in refused.err
    assert not Path("noisy.jsonl").exists()
    forced = cli("privatize", *arguments, "--force")
    assert forced.code == 0, forced.err
    assert Ledger.open("notes").spent().infinite


def test_the_plan_says_what_this_mechanism_does_beside_what_none_surpasses(notes, cli):
    size = len(vocabulary().vectors)
    laws = [Toy(vocabulary().vectors, epsilon).probabilities(np.arange(size)) for epsilon in (2.0, 1.0)]
    one, other = (float(np.diag(law).mean()) for law in laws)
    said = cli("privatize", *notes, "--epsilon", 2, "--plan").out
    assert f"this mechanism draws the very token again with a chance of {one:.3g}: the mean over all tokens" in said
    assert "upper bounds, no forecast: the least lucky token's meaning survives at most so often" in said
    found = cli("privatize", *notes, "--epsilon", "2x3,1", "--k-max", 4, "--plan", "--json").json["unchanged"]
    assert found == {"share": pytest.approx((3 * one + other) / 4), "tokens_read": size}


def test_the_leak_report_stays_in_the_private_folder(notes, cli):
    said = cli("privatize", *notes, "--epsilon", 2, "--k-max", 6, "--output", "noisy.jsonl", "--leaks")
    assert said.code == 0, said.err
    assert "unchanged" not in said.out + Path("noisy.jsonl.card.json").read_text()
    assert "private, and covered by no guarantee:" in said.err
    report = json.loads(Path("noisy.jsonl.private/leaks.json").read_text())
    assert report["tokens"] == 20
    assert report["private"].endswith("keep it to yourself")
    assert CANARY not in json.dumps(report) + said.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["nothing.jsonl"], "no file at nothing.jsonl"),
        (["notes.doc"], "must end with"),
        (["latin.jsonl"], "must be UTF-8, and line 1"),
        (["twice.jsonl", "--id", "case"], "must be unique"),
        (["notes.jsonl", "--text", "nota"], "has no column 'nota'; did you mean 'note'"),
        (["notes.jsonl", "--id", "cse"], "has no column 'cse'; did you mean 'case'"),
        (["notes.jsonl", "--epsilon", "-1"], "must be finite and > 0"),
        (["notes.jsonl", "--epsilon", "high"], "is a number, or a list like"),
        (["notes.jsonl", "--epsilon", "1x3,2"], "got 4 for 64"),
        (["notes.jsonl", "--epsilon", "8x-5,2x4", "--k-max", "4"], "is a number, or a list like"),
        (["notes.jsonl", "--epsilon", "8x0,2x4", "--k-max", "4"], "is a number, or a list like"),
        (["notes.jsonl", "--epsilon", "8x,2x3", "--k-max", "4"], "is a number, or a list like"),
        (["notes.jsonl", "--level", "word"], "must be token or document"),
        (["notes.jsonl", "--mechanism", "geometric"], "draws no tokens"),
        (["notes.jsonl", "--mechanism", "tony"], "nearest: 'toy'"),
        (["notes.jsonl", "--vectors", "none.txt"], "no file at none.txt"),
        (["notes.jsonl", "--model", "."], "exactly one of model and vectors"),
        (["notes.jsonl", "--option", "utility"], "takes KEY=VALUE"),
        (["notes.jsonl", "--option", "bound=1"], "did you mean 'bounded'"),
        (["notes.jsonl", "--output", "there.jsonl"], "must be new"),
        (["notes.jsonl", "--output", "no/where.jsonl"], "must be a folder"),
        (["notes.jsonl", "--cap-epsilon", "1"], "must fit into the cap of epsilon = 1,"),
        (["notes.jsonl", "--delta", "0.5"], "must stay below 1/N"),
        (["notes.jsonl", "--delta", "0.5", "--plan"], "must stay below 1/N"),
        (["notes.jsonl", "--delta", "0.2", "--plan", "--json"], "must stay below 1/N"),
        (["notes.jsonl", "--name", "a/b"], "data set name"),
    ],
)
def test_bad_input_is_refused_before_anything_is_spent(notes, cli, change, message):
    Path("notes.doc").write_text("x")
    Path("there.jsonl").write_text("x")
    Path("latin.jsonl").write_bytes(b'{"note": "caf\xe9"}\n')
    Path("twice.jsonl").write_text(
        json.dumps({"note": CANARY, "case": CANARY}) + "\n" + json.dumps({"note": "b", "case": CANARY})
    )
    before = sorted(Path().rglob("*"))
    said = cli("privatize", *notes[1:], "--epsilon", 2, "--output", "noisy.jsonl", *change)
    assert said.code == 2, said.err
    assert "refused: " in said.err
    assert re.search(message, said.err), said.err
    assert CANARY not in said.err
    assert sorted(Path().rglob("*")) == before
    assert not list(Path(os.environ["PRIVKT_STATE"]).rglob("*.sqlite3"))


@pytest.mark.parametrize(
    "change",
    [
        ["--epsilon", "abc"],
        ["--epsilon", "0"],
        ["--epsilon", "-1"],
        ["--epsilon", "nan"],
        ["--epsilon", "inf"],
        ["--epsilon", "1x3,2"],
        ["--epsilon", "1x32,2x32", "--level", "document"],
        ["--level", "word"],
        ["--mechanism", "tony"],
        ["--mechanism", "geometric"],
        ["--option", "bounded"],
        ["--option", "bound=1"],
        ["--keep-words", "none.txt"],
        ["--output", "there.jsonl"],
        ["--output", "no/where.jsonl"],
    ],
)
def test_what_can_be_refused_at_once_is_refused_before_the_vocabulary_is_read(notes, cli, change, monkeypatch):
    def read(*_, **__):
        raise AssertionError

    monkeypatch.setattr("privkt.runtime.vocabularies.read_vocabulary", read)
    Path("there.jsonl").write_text("x")
    said = cli("privatize", *notes, "--epsilon", 2, "--output", "noisy.jsonl", *change)
    assert said.code == 2
    assert said.err.startswith("refused: ")


def test_ctrl_c_says_how_to_go_on(notes, cli, monkeypatch):
    from privkt.synthesis.privatiser import TextPrivatiser

    drawn = TextPrivatiser.draw

    def stop(self, texts):
        raise KeyboardInterrupt

    monkeypatch.setattr(TextPrivatiser, "draw", stop)
    arguments = (*notes, "--epsilon", 2, "--output", "noisy.jsonl")
    said = cli("privatize", *arguments)
    assert said.code == 130
    assert "stopped: what is drawn is kept; the same command goes on" in said.err
    assert not Path("noisy.jsonl").exists()
    monkeypatch.setattr(TextPrivatiser, "draw", drawn)
    assert cli("privatize", *arguments).code == 0
    assert len(Ledger.open("notes").charges()) == 1


def test_a_plan_says_what_is_left_and_what_would_be_refused(notes, cli):
    said = cli("privatize", *notes, "--epsilon", 2, "--k-max", 4, "--cap-epsilon", 20, "--plan")
    assert "left in the ledger before this: epsilon 20, delta 1e-5, which is enough\n" in said.out
    done = cli("privatize", *notes, "--epsilon", 2, "--k-max", 4, "--cap-epsilon", 7, "--output", "noisy.jsonl")
    assert done.code == 0, done.err
    left = Ledger.open("notes").left()
    said = cli("privatize", *notes, "--epsilon", 2, "--k-max", 4, "--plan")
    assert said.code == 2
    assert f"left in the ledger before this: {left}\n" in said.out
    assert "all charges together must" in said.err
    found = cli("privatize", *notes, "--epsilon", 2, "--k-max", 4, "--plan", "--json")
    assert found.code == 0
    assert found.json["left"]["epsilon"] == left.epsilon
    assert "all charges together must" in found.json["left"]["refused"]
    assert len(Ledger.open("notes").charges()) == 1


def test_printed_numbers_err_on_the_safe_side(notes, cli):
    """What is left rounds down, what is spent and what no mechanism surpasses round up: each would round the other way
    to the nearest."""
    arguments = [*notes, "--epsilon", 2, "--k-max", 4]
    cap = ("--cap-epsilon", 20.00199, "--cap-delta", 0.0012349, "--delta", 0.00123401)
    said = cli("privatize", *arguments, *cap, "--plan")
    assert "left in the ledger before this: epsilon 20.00199, delta 0.0012349, which is enough\n" in said.out
    ceiling = utility_ceiling(Toy(vocabulary().vectors, 2.0).certificate.epsilon, len(vocabulary().vectors))
    assert f"{ceiling:.3g}" != rounded_up(ceiling, 3)
    assert f"whatever the mechanism: {rounded_up(ceiling, 3)} (the very token)" in said.out
    arguments = [*notes, "--epsilon", 0.2, "--output", "noisy.jsonl"]
    assert cli("privatize", *arguments, *cap).code == 0
    spent = Ledger.open("notes").spent()
    assert spent.delta == 0.00123401
    assert "epsilon {}, delta 0.0012341".format(*spent.said) in cli("budget").out
    assert float(spent.said[0]) >= spent.epsilon


def test_a_cap_that_is_what_a_spend_costs_is_printed_as_it_and_nothing_is_left(notes, cli):
    """Charged, spent, left and cap in the same digits, whatever the spend costs."""
    arguments = [*notes, "--epsilon", 1.2345678, "--k-max", 3]
    planned = cli("privatize", *arguments, "--plan").out
    charged = re.search(r"charged: epsilon = (\S+),", planned)[1]
    assert f"left in the ledger before this: epsilon {charged}, delta 1e-5, which is enough\n" in planned
    assert cli("privatize", *arguments, "--output", "noisy.jsonl").code == 0
    assert Ledger.open("notes").spent().epsilon < float(charged) == Ledger.open("notes").cap.epsilon
    said = re.findall(r"epsilon (\S+), delta (\S+)", cli("budget").out)
    assert said == [(charged, "0"), ("0", "1e-5"), (charged, "1e-5")]


def test_rows_that_changed_need_another_output_whatever_is_confirmed(notes, cli):
    arguments = [*notes, "--epsilon", 2, "--k-max", 4, "--cap-epsilon", 100]
    assert cli("privatize", *arguments, "--output", "noisy.jsonl").code == 0
    rows = [json.dumps({"note": f"{text} again"}) + "\n" for text in TEXTS]
    Path("notes.jsonl").write_text("".join(rows))
    for confirmed in ((), ("--data-changed",)):
        said = cli("privatize", *arguments, *confirmed, "--output", "noisy.jsonl")
        assert said.code == 2
        assert "noisy.jsonl.private holds draws of the rows that its spend began with" in said.err
        assert "give another --output and say --data-changed" in said.err
    said = cli("privatize", *arguments, "--data-changed", "--output", "new.jsonl")
    assert said.code == 0, said.err
    assert len(Ledger.open("notes").charges()) == 2


def test_another_cap_is_not_passed_over_in_silence(notes, cli):
    arguments = [*notes, "--epsilon", 2, "--k-max", 4, "--output", "noisy.jsonl"]
    assert cli("privatize", *arguments, "--cap-epsilon", 12).code == 0
    assert cli("privatize", *arguments, "--cap-epsilon", 12).code == 0
    for cap in (("--cap-epsilon", 11), ("--cap-epsilon", 30), ("--cap-delta", 1e-3)):
        said = cli("privatize", *arguments, *cap)
        assert said.code == 2
        assert "with a cap of epsilon = 12" in said.err

"""Every row of bad input, through the real command: exit code 2, a message that helps, nothing spent or half-written.

A row changes one thing of a config that passes `privkt plan` otherwise; its valid twin differs in that one thing.
"""

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from privkt.contracts import Rows
from privkt.privacy import Guarantee, Ledger, pure_event

CANARY = "canary7f3a"
ROWS = {}


def row(name, said):
    """Registers a change; it is called with a house and whether to make it bad, and may return flags."""

    def register(change):
        ROWS[name] = (change, said)
        return change

    return register


def ledger_of(house, *, epsilon=0.0, unit="record", neighbouring="zero-out", rows=None, name="visits-a"):
    """A ledger that another run left behind, which spent `epsilon` on the client's rows or on others."""
    ledger = Ledger.open_or_create(
        name, cap_epsilon=8.0, cap_delta=1e-3, unit=unit, neighbouring=neighbouring, size=house.size
    )
    if epsilon:
        kept = house.rows() if rows is None else rows
        held = Rows(tuple(r["text"] for r in kept), tuple(r["mood"] for r in kept))
        ledger.charge(
            pure_event(epsilon),
            Guarantee("pure", epsilon, unit=unit, neighbouring=neighbouring),
            run_id="earlier",
            purpose="earlier",
            fingerprint=ledger.fingerprint(held.canonical()),
            declared={},
        )
    return ledger


# -- the config -----------------------------------------------------------------------------------------------------


@row("a key is missing", "config: key 'budget' is missing; add it")
def _(house, bad):
    if bad:
        del house.raw["budget"]


@row("a key is misspelt", "config: unknown key 'budgett'; did you mean 'budget'?")
def _(house, bad):
    house.raw["budgett" if bad else "budget"] = house.raw.pop("budget")


@row("a key of a block is misspelt", "unknown key 'budget.epsilonn'; did you mean 'epsilon'?")
def _(house, bad):
    house.raw["budget"] = {"epsilonn" if bad else "epsilon": 8, "delta": 1e-3}


@row("a key of the method is misspelt", "fdkt: unknown key 'samples_per_labl'; did you mean 'samples_per_label'?")
def _(house, bad):
    house.raw["fdkt"]["samples_per_labl" if bad else "samples_per_label"] = 4


@row("a value has the wrong type", "fdkt: samples_per_label: Input should be a valid integer")
def _(house, bad):
    house.raw["fdkt"]["samples_per_label"] = "many" if bad else 4


@row("the file is not YAML", "is not valid YAML at line")
def _(house, bad):
    house.save()
    if bad:
        house.config.write_text(house.config.read_text() + "\nfdkt: [1,\n")
    return "saved"


@row("the config is not there", "config: no file at")
def _(house, bad):
    house.save()
    if bad:
        house.config.unlink()
    return "saved"


@row("a role has no model", "needs a model for the role 'llm'")
def _(house, bad):
    house.raw["models"]["llm_" if bad else "llm"] = house.raw["models"].pop("llm")


@row("a model is not there", "must be an existing folder or a hub id, and there is no such folder; correct the path")
def _(house, bad):
    if bad:
        house.raw["models"]["llm"]["model"] = str(house.folder / "nowhere")


@row("two clients have one name", r"client names must differ .*got 'a' twice")
def _(house, bad):
    house.raw["clients"] = [house.client("a"), house.client("b", 100)]
    if bad:
        house.raw["clients"][1]["name"] = "a"


@row("two clients have one data set", r"data names must differ .*got 'visits-a' twice")
def _(house, bad):
    house.raw["clients"] = [house.client("a"), house.client("b", 100)]
    if bad:
        house.raw["clients"][1]["data"]["name"] = "visits-a"


@row("two clients have the same rows", r"clients 'a' and 'b': one data set has one name.*--new-name-confirmed")
def _(house, bad):
    house.raw["clients"] = [house.client("a"), house.client("b", 0 if bad else 100)]


# -- plugins --------------------------------------------------------------------------------------------------------


@row("a method is unknown", r"method: no plugin provides 'fdktt'; nearest: 'fdkt'(.|\n)*pip install")
def _(house, bad):
    if bad:
        house.raw["fdktt"] = house.raw.pop("fdkt")
        house.raw["method"] = "fdktt"


@row("a backend is unknown", r"backend: no plugin provides 'transformer'; nearest: 'transformers'(.|\n)*pip install")
def _(house, bad):
    house.raw["models"]["llm"]["backend"] = "transformer" if bad else "transformers"


@row("a source is unknown", r"dataset: no plugin provides 'jsonn'; nearest: 'json'(.|\n)*pip install")
def _(house, bad):
    house.data["source"] = "jsonn" if bad else "json"


# -- data -----------------------------------------------------------------------------------------------------------


@row("the data is empty", r"data \(json\): is empty: it must have at least one row")
def _(house, bad):
    if bad:
        house.file.write_text("")


@row("the file of the data is not there", r"client 'a', data \(json\): `path` names no file")
def _(house, bad):
    if bad:
        house.file.unlink()


@row("the file of the evaluation is not there", r"client 'a', evaluation \(json\): `path` names no file")
def _(house, bad):
    if bad:
        Path(house.raw["evaluation"]["data"]["path"]).unlink()


@row("labels are declared and no column of them is", r"client 'a', data \(json\): `labels` needs `label`")
def _(house, bad):
    if bad:
        del house.data["label"]


@row("the block of the method is named otherwise than the method", r"'fdkt'; a method's block bears .*'fdtk'; one of")
def _(house, bad):
    if bad:
        house.raw["method"] = "fdtk"


@row("a column is missing", r"data \(json\): has no column 'txt'; did you mean 'text'\?")
def _(house, bad):
    house.data["text"] = "txt" if bad else "text"


@row("a row lacks its column", r"line 5\): column 'mood' is missing; fill it or drop the row")
def _(house, bad):
    rows = house.rows()
    if bad:
        del rows[4]["mood"]
    house.write_rows(house.file, rows)


@row(
    "a label is not declared",
    r"line 5\): column 'mood' holds a label that is not declared; declared are negative, positive; correct",
)
def _(house, bad):
    rows = house.rows()
    rows[4]["mood"] = f"sad {CANARY}" if bad else "negative"
    house.write_rows(house.file, rows)


@row("one class only", "column 'mood' holds one class only in 48 rows; labelled data needs at least two classes")
def _(house, bad):
    rows = [{**r, "mood": "negative"} for r in house.rows()]
    rows[0]["mood"] = "negative" if bad else "positive"
    house.write_rows(house.file, rows)


@row("one label is declared", "`labels` must be at least two different names, got 1")
def _(house, bad):
    house.data["labels"] = ["negative"] if bad else ["negative", "positive"]


@row("the data is not UTF-8", r"data \(json\): must be UTF-8, and line 5 \(byte \d+\) is not; convert the file")
def _(house, bad):
    lines = house.file.read_bytes().splitlines()
    lines[4] = lines[4].replace(b"visit", "visité".encode("latin-1" if bad else "utf-8"))
    house.file.write_bytes(b"\n".join(lines))


@row("a line is not JSON", r"data \(json\): line 5, column \d+ is not valid JSON; correct the file")
def _(house, bad):
    lines = house.file.read_text().splitlines()
    if bad:
        lines[4] = lines[4][:30]
    house.file.write_text("\n".join(lines))


@row("the declared N is wrong", r"data.size must be the number of rows.*declared 47, found 48; declare the true number")
def _(house, bad):
    house.data["size"] = 47 if bad else 48


@row("the evaluation data is empty", r"client 'a', evaluation \(json\): is empty")
def _(house, bad):
    if bad:
        (house.folder / CANARY / "test.jsonl").write_text("")


# -- what is asked of privacy ---------------------------------------------------------------------------------------


@row("epsilon is 0", r"budget\.epsilon.*got 0")
def _(house, bad):
    house.raw["budget"]["epsilon"] = 0 if bad else 0.5


@row("epsilon is negative", r"budget\.epsilon.*got -1")
def _(house, bad):
    house.raw["budget"]["epsilon"] = -1 if bad else 1


@row("epsilon is not a number", r"budget\.epsilon.*got nan")
def _(house, bad):
    house.raw["budget"]["epsilon"] = math.nan if bad else 8.0


@row("epsilon is infinite", r"budget\.epsilon.*got inf")
def _(house, bad):
    house.raw["budget"]["epsilon"] = math.inf if bad else 8.0


@row("delta reaches 1/N", r"budget\.delta must stay below 1/N = 0\.0208 for N = 48.*leave it out for min")
def _(house, bad):
    house.raw["budget"]["delta"] = 1 / 48 if bad else 0.99 / 48


@row("the batch is larger than the data", "batch_size must be at most the declared size 48, got 49; lower it")
def _(house, bad):
    house.raw["fdkt"]["generator"]["batch_size"] = 49 if bad else 48


# -- ledgers --------------------------------------------------------------------------------------------------------


@row("the budget is exceeded", r"must stay within the cap.*asked epsilon = 2.*left epsilon = 1.*; ask for less")
def _(house, bad):
    ledger_of(house, epsilon=7.0)
    house.raw["budget"]["epsilon"] = 2 if bad else 1


@row("a run asks for more than its own cap", r"must fit into the cap of epsilon = 4.*asks for 8")
def _(house, bad):
    house.raw["budget"]["cap_epsilon"] = 4 if bad else 8


@row("the ledger counts another unit", r"ledger visits-a: unit stays what it was made with, user, got record")
def _(house, bad):
    ledger_of(house, unit="user" if bad else "record")


@row("the ledger has another relation", r"neighbouring stays what it was made with, replace-one, got zero-out")
def _(house, bad):
    ledger_of(house, neighbouring="replace-one" if bad else "zero-out")


@row("the ledger has another filter", r"filter stays what it was made with, basic, got zcdp")
def _(house, bad):
    ledger_of(house)
    house.raw["budget"]["filter"] = "zcdp" if bad else "basic"


@row("the data changed", r"data behind one name must stay the same.*--data-changed, which keeps what is spent")
def _(house, bad):
    rows = house.rows()
    rows[4]["text"] += " and more" if bad else ""
    ledger_of(house, epsilon=1.0, rows=rows)
    house.raw["budget"]["epsilon"] = 4


@row("the data is counted under another name", r"already accounted for as other; .*say --new-name-confirmed")
def _(house, bad):
    rows = house.rows()
    rows[4]["text"] += "" if bad else " and more"
    ledger_of(house, epsilon=1.0, rows=rows, name="other")


@row("the ledger was tampered with", r"hash chain must hold, but entry 2 was changed or moved; restore the newest copy")
def _(house, bad):
    ledger = ledger_of(house, epsilon=1.0)
    house.raw["budget"]["epsilon"] = 4
    if bad:
        with closing(sqlite3.connect(ledger.path)) as connection:
            connection.execute("DROP TRIGGER entries_stay")
            connection.execute("UPDATE entries SET body = replace(body, '1.0', '0.1') WHERE kind = 'charge'")
            connection.commit()


# -- the tests ------------------------------------------------------------------------------------------------------


def ledgers(state):
    """Every ledger's lines, tampered or not."""
    found = {}
    for path in sorted(state.rglob("*.sqlite3")):
        with closing(sqlite3.connect(path)) as connection:
            found[path.name] = connection.execute("SELECT * FROM entries").fetchall()
    return found


def made(house, change, bad):
    if change(house, bad) != "saved":
        house.save()


@pytest.fixture
def state(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledgers")
    monkeypatch.setenv("PRIVKT_STATE", str(folder))
    monkeypatch.delenv("PRIVKT_DEBUG", raising=False)
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_bad_input_is_refused_before_anything_is_spent(house, cli, state, name, caplog):
    change, message = ROWS[name]
    made(house, change, bad=True)
    before, files = ledgers(state), sorted(house.folder.rglob("*"))
    for command in (("plan", house.config), ("run", house.config, "--output", house.run)):
        said = cli(*command)
        assert said.code == 2, said.err
        assert said.out == ""
        assert said.err.startswith("refused: ")
        assert re.search(message, said.err), said.err
        assert CANARY not in said.err + caplog.text
        assert "Traceback" not in said.err
    assert ledgers(state) == before
    assert sorted(house.folder.rglob("*")) == files
    for path in state.rglob("*"):
        assert CANARY.encode() not in (path.read_bytes() if path.is_file() else b"")


@pytest.mark.parametrize("name", ROWS)
def test_its_valid_twin_passes(house, cli, state, name):
    change, _ = ROWS[name]
    made(house, change, bad=False)
    before = ledgers(state)
    said = cli("plan", house.config)
    assert said.code == 0, said.err
    assert said.out.endswith("nothing was spent\n")
    assert CANARY not in said.out + said.err
    assert ledgers(state) == before


def test_every_row_of_the_promise_is_here():
    assert len(ROWS) >= 38


@pytest.mark.parametrize("name", ["a key is misspelt", "the data is not UTF-8", "the budget is exceeded"])
def test_a_process_of_its_own_says_the_same(house, process, state, name):
    change, message = ROWS[name]
    made(house, change, bad=True)
    said = process("run", house.config, "--output", house.run).said()
    assert said.code == 2
    assert re.search(message, said.err), said.err
    assert said.out == ""
    assert CANARY not in said.err
    assert not house.run.exists()


def test_confirmations_of_changed_data_and_a_new_name_pass(house, cli, state):
    rows = house.rows()
    rows[4]["text"] += " and more"
    ledger_of(house, epsilon=1.0, rows=rows)
    house.raw["budget"]["epsilon"] = 4
    house.save()
    assert cli("plan", house.config).code == 2
    assert cli("plan", house.config, "--data-changed").code == 0
    house.data["name"] = "visits-again"
    ledger_of(house, epsilon=1.0, name="other")
    house.save()
    assert cli("plan", house.config).code == 2
    assert cli("plan", house.config, "--new-name-confirmed").code == 0


def test_a_scalar_loss_is_refused_by_the_loop_with_the_fix(tmp_path, capsys):
    """The one row that has no config: a user's own loop."""
    import torch

    from privkt.cli.errors import exit_code_of
    from privkt.dpsgd import PrivateTraining
    from privkt.privacy import Budget, RefusedInput

    model = torch.nn.Linear(3, 2)
    ledger = Ledger.open_or_create("numbers", cap_epsilon=8.0, cap_delta=1e-3, size=40)
    records = [(torch.full((3,), i / 40), i % 2) for i in range(40)]

    def train(reduction):
        training = PrivateTraining(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            records,
            collate_fn=lambda rows: (torch.stack([x for x, _ in rows]), torch.tensor([y for _, y in rows])),
            budget=Budget(8.0, 1e-3, ledger=ledger),
            size=40,
            batch_size=20,
            steps=2,
            run_id=f"run-{reduction}",
            purpose="numbers",
            fingerprint=ledger.fingerprint([b"numbers"]),
            data_set_id=ledger.data_set_id,
        )
        for x, y in training:
            training.step(torch.nn.functional.cross_entropy(model(x), y, reduction=reduction))

    with pytest.raises(RefusedInput) as refused:
        train("mean")
    assert exit_code_of(refused.value) == 2
    assert "losses must be one per sample" in (said := capsys.readouterr().err)
    assert "got a scalar; use training.causal_lm_losses(batch), or reduction='none'" in said
    assert ledger.charges() == ()
    train("none")
    assert len(ledger.charges()) == 1


def test_bad_config_values_that_hold_secrets_are_not_repeated(house, cli, state):
    house.raw["models"]["llm"] = {"backend": "openai", "base_url": f"http://user:{CANARY}@127.0.0.1:1/v1", "model": "m"}
    said = cli("plan", house.save())
    assert said.code == 2
    assert "without user or password" in said.err
    assert CANARY not in said.out + said.err

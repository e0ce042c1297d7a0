"""Every row of bad input through the real command: exit 2, a message that helps, nothing spent or half-written."""

import re
import sqlite3
from contextlib import closing

import pytest
from bad_input import CANARY, ROWS, ledger_of

from privkt.privacy import Ledger


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

"""The rows of test_bad_input.py: what may be wrong with a config, its data or its ledgers, and what is then said.

A row changes one thing of a config that passes `privkt plan` otherwise; its valid twin differs in that one thing.
"""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

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

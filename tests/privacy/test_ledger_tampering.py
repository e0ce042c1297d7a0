import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from privkt.privacy import Guarantee, Kind, Ledger, LedgerMismatch, LedgerTampered, LedgerUnavailable, pure_event
from privkt.privacy import _store as store_module
from privkt.privacy._chain import Entry, link

RULE = "its hash chain must hold, but "


@pytest.fixture
def ledger(tmp_path):
    made = Ledger.open_or_create("reviews", cap_epsilon=9.0, cap_delta=0.0, size=10, state=tmp_path)
    for number in range(4):
        spend(made, number)
    return made


def spend(ledger, number):
    return ledger.charge(
        pure_event(1.0), Guarantee(Kind.PURE, 1.0), run_id=str(number), purpose="p", fingerprint="f", declared={}
    )


def attack(ledger, *statements):
    """What somebody with the file and SQLite can do; the triggers go first."""
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.executescript("DROP TRIGGER entries_stay; DROP TRIGGER entries_remain;")
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()


def refused_everywhere(ledger, entry):
    for use in (ledger.verify, ledger.spent, ledger.left, ledger.statement, lambda: spend(ledger, 99)):
        with pytest.raises(LedgerTampered, match=f"ledger reviews: {RULE}") as error:
            use()
        assert error.value.entry == entry
    with pytest.raises(LedgerTampered):
        Ledger.open(ledger.path)


def test_an_untouched_ledger_verifies(ledger):
    ledger.verify()
    ledger.verify(expected_head=ledger.head())


def test_sqlite_itself_refuses_changes_and_removals(ledger):
    with closing(sqlite3.connect(ledger.path)) as connection:
        for statement, said in (
            ("UPDATE entries SET body = '{}' WHERE sequence = 2", "never changed"),
            ("DELETE FROM entries", "never removed"),
        ):
            with pytest.raises(sqlite3.IntegrityError, match=said):
                connection.execute(statement)


@pytest.mark.parametrize("column", ["body", "kind", "time", "hash", "previous"])
def test_an_edited_entry_is_found(ledger, column):
    attack(ledger, (f"UPDATE entries SET {column} = '0' || substr({column}, 2) || ' ' WHERE sequence = 3", ()))
    refused_everywhere(ledger, 3)


def test_a_cheaper_charge_is_found_even_with_a_fresh_hash(ledger):
    third = ledger.entries()[2]
    body = third.body
    body["guarantee"]["epsilon"] = body["cost"]["epsilon"] = 0.001
    cheap = link(3, third.kind, third.time, json.dumps(body), third.previous)
    attack(ledger, ("UPDATE entries SET body = ?, hash = ? WHERE sequence = 3", (cheap.text, cheap.hash)))
    refused_everywhere(ledger, 4)


def test_a_removed_entry_is_found(ledger):
    attack(ledger, ("DELETE FROM entries WHERE sequence = 3", ()))
    refused_everywhere(ledger, 3)


def test_swapped_entries_are_found(ledger):
    attack(
        ledger,
        ("UPDATE entries SET sequence = 30 WHERE sequence = 3", ()),
        ("UPDATE entries SET sequence = 3 WHERE sequence = 4", ()),
        ("UPDATE entries SET sequence = 4 WHERE sequence = 30", ()),
    )
    refused_everywhere(ledger, 3)


def test_truncation_is_found(ledger):
    attack(ledger, ("DELETE FROM entries WHERE sequence >= 4", ()))
    refused_everywhere(ledger, 4)


def test_an_emptied_ledger_is_found(ledger):
    attack(ledger, ("DELETE FROM entries", ()))
    refused_everywhere(ledger, 1)


def test_a_consistent_truncation_is_found_only_by_a_head_kept_elsewhere(ledger):
    kept, last = ledger.head(), ledger.entries()[-2]
    attack(
        ledger,
        ("DELETE FROM entries WHERE sequence = 5", ()),
        ("UPDATE head SET sequence = ?, hash = ?", (last.sequence, last.hash)),
    )
    ledger.verify()
    with pytest.raises(LedgerTampered, match="it must hold the head that was kept elsewhere, and entry 5 and") as error:
        ledger.verify(expected_head=kept)
    assert error.value.entry == 5


def test_an_older_copy_is_found_only_by_a_head_kept_elsewhere(ledger, tmp_path):
    copy = tmp_path / "copy"
    shutil.copy(ledger.path, copy)
    older = ledger.head()
    spend(ledger, 10)
    kept = ledger.head()
    ledger.verify(expected_head=older)  # a run's head from earlier is a part of the chain
    shutil.copy(copy, ledger.path)
    ledger.verify()
    assert ledger.spent().epsilon == 4.0
    with pytest.raises(LedgerTampered, match="kept elsewhere"):
        ledger.verify(expected_head=kept)
    spend(ledger, 11)  # and a chain that grew on from the copy is another chain
    with pytest.raises(LedgerTampered, match="kept elsewhere"):
        ledger.verify(expected_head=kept)


def test_a_file_that_is_no_ledger_is_refused(ledger):
    ledger.path.write_bytes(b"not a database at all, and long enough to be looked at" * 100)
    with pytest.raises(LedgerTampered, match="it must be a sound SQLite file"):
        ledger.verify()


def test_another_data_sets_file_is_refused(ledger):
    moved = ledger.path.with_name("other.sqlite3")
    shutil.copy(ledger.path, moved)
    with pytest.raises(LedgerMismatch, match="got a file made for reviews"):
        Ledger.open(moved)


def test_a_locked_ledger_spends_nothing_and_says_so(ledger, monkeypatch):
    monkeypatch.setattr(store_module, "_PATIENCE", 0.1)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="free the disk or wait for the other process"):
            spend(ledger, 20)
        connection.execute("ROLLBACK")
    assert ledger.spent().epsilon == 4.0


def test_a_full_disk_spends_nothing_and_says_so(ledger, monkeypatch):
    """SQLite's own page limit stands in for the disk: the insert fails inside the transaction."""
    plain = sqlite3.connect

    def crowded(*arguments, **named):
        connection = plain(*arguments, **named)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(store_module.sqlite3, "connect", crowded)
    before = len(ledger.entries())

    def spend_until_full():
        for number in range(20, 60):
            spend(ledger, number)

    with pytest.raises(LedgerUnavailable, match="database or disk is full"):
        spend_until_full()
    monkeypatch.undo()
    ledger.verify()
    assert ledger.spent().epsilon == len(ledger.entries()) - 1 >= before - 1


def test_entries_are_linked_by_everything_they_say():
    first = link(1, "opened", "now", "{}", "0" * 64)
    for other in (
        link(2, "opened", "now", "{}", "0" * 64),
        link(1, "charge", "now", "{}", "0" * 64),
        link(1, "opened", "then", "{}", "0" * 64),
        link(1, "opened", "now", "{} ", "0" * 64),
        link(1, "opened", "now", "{}", "1" * 64),
    ):
        assert isinstance(other, Entry)
        assert other.hash != first.hash

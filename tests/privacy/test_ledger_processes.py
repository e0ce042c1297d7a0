import subprocess
import sys
from pathlib import Path

from privkt.privacy import Ledger

WRITER = Path(__file__).with_name("ledger_writer.py")


def run(*arguments):
    """The lines that writers said, as (writer, charge id or "refused")."""
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split(" ")) for line in done.stdout.splitlines()]


def test_many_writers_fill_a_tight_cap_and_never_pass_it(tmp_path):
    said = run("fill", tmp_path, 5.0, 9, 6)
    ledger = Ledger.open("shared", state=tmp_path)
    ledger.verify()
    assert ledger.spent().epsilon == 5.0  # 20 charges of 0.25: the shared one and 19 of 48
    first = dict(reversed(said))
    assert len(first) == 6
    assert len(set(first.values())) == 1  # one shared charge, resumed by all
    assert sum(charge == "refused" for _, charge in said) == 6 * 8 - 19
    assert {charge for _, charge in said} - {"refused"} == {charge.id for charge in ledger.charges()}


def test_killed_writers_lose_no_acknowledged_spend(tmp_path):
    rounds = 15
    acknowledged = {charge for _, charge in run("kill", tmp_path, rounds)}
    ledger = Ledger.open("shared", state=tmp_path)
    ledger.verify()
    held = {charge.id for charge in ledger.charges()}
    assert acknowledged <= held
    assert len(held - acknowledged) <= 2 * rounds  # at most one charge a writer was on disk but not yet said
    assert ledger.spent().epsilon == 0.25 * len(held)
    assert len(acknowledged) > 2 * rounds

"""kill -9 at random moments, again and again, until the run is finished: one charge, one draw, the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from privkt.privacy import Ledger
from privkt.runtime.gate import read_manifest
from privkt.runtime.results import stored_outcomes
from privkt.runtime.run_directory import RunDirectory


def begin(toys, tmp_path):
    environment = {**os.environ, "TOY_PAUSE": "0.05", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(toys.__file__)), str(tmp_path), str(tmp_path / "run")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def wait_for(process, what, run):
    """Until the run wrote as many events; the process may end before."""
    events = run / "private" / "events.jsonl"
    while process.poll() is None and (not events.exists() or events.read_bytes().count(b"\n") < what):
        time.sleep(0.002)


def test_kill_at_random_moments_pays_and_draws_once(toys, tmp_path):
    config, dice, run = toys.toy_config(tmp_path, toy={"pause": 0.05}), random.Random(20), tmp_path / "run"
    seen, kills, ended = {}, 0, None
    for attempt in range(5):
        process = begin(toys, tmp_path)
        # Let it get further than last time, then a moment more.
        wait_for(process, (2, 3, 5, 9, 14)[attempt], run)
        time.sleep(dice.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        ended = process.returncode
        assert ended in (0, -signal.SIGKILL), errors.decode()
        kills += ended != 0
        for path in (run / "outbound").rglob("*.arrow"):
            assert seen.setdefault(path, path.read_bytes()) == path.read_bytes()
        if ended == 0:
            break
    if ended != 0:
        process = begin(toys, tmp_path)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert kills >= 2
    directory = RunDirectory.open(run)
    assert sorted(stored_outcomes(directory, toys.Toy)["a"]) == [0, 1]
    ledger = Ledger.open("data-a")
    assert [e.kind for e in ledger.entries()] == ["opened", "charge", "stored", "sent"]
    assert ledger.spent().epsilon == 1.0
    (crossed,) = read_manifest(directory)
    path = directory.outbound / crossed.file
    assert seen.get(path, path.read_bytes()) == path.read_bytes()
    assert ledger.status(ledger.charges()[0].id).sent == {"publish.shared": crossed.sha256}
    directory.check_config(config)

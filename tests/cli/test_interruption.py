"""Ctrl-C and kill -9 in the middle of a run: `privkt run --resume` ends it with the same epsilon and one charge."""

import signal
import time

import pytest

from privkt.privacy import Ledger


def charges(name="visits-a"):
    return [e.body for e in Ledger.open(name).entries() if e.kind == "charge"]


def wait_for(process, happened, seconds=90):
    """Until `happened()`, while the process still runs."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.said().err
        assert time.monotonic() < deadline, "too slow to be interrupted in the middle"
        time.sleep(0.02)


@pytest.fixture
def long_house(house):
    """Sixty steps of private training: time enough to be stopped in the middle of it."""
    house.raw["fdkt"]["generator"]["epochs"] = 30
    house.raw["fdkt"]["baselines"] = []
    house.save()
    return house


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_resumes_with_the_same_epsilon(long_house, process, cli, number, code):
    run = long_house.run
    started = process("run", long_house.config, "--output", run)
    wait_for(started, lambda: list(run.glob("private/checkpoints/a/tune/shared/**/private-training/*")))
    started.send_signal(number)
    said = started.said()
    assert said.code == code, said.err
    (charge,) = charges()
    assert not (run / "private" / "report.html").exists()
    if number == signal.SIGINT:
        assert f"`privkt run --resume {run}` finishes the run with the same epsilon" in " ".join(said.err.split("\n"))
        assert "Traceback" not in said.err
    shown = cli("show", run)
    assert shown.out.startswith(f"not finished; go on with: privkt run --resume {run}")
    resumed = cli("run", "--resume", run)
    assert resumed.code == 0, resumed.err
    assert charges() == [charge]
    epsilon = charge["guarantee"]["epsilon"]
    report = cli("show", run, "--json").json
    assert report["finished"]
    (training,) = report["clients"]["a"]["trainings"]
    assert (training["epsilon"], training["steps"], training["taken"]) == (epsilon, 60, 60)
    assert report["clients"]["a"]["ledger"]["spent"]["epsilon"] == pytest.approx(epsilon, rel=1e-12)


def test_ctrl_c_before_anything_is_begun(house, cli, monkeypatch):
    from privkt.runtime.local import LocalRuntime

    def stop(self, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalRuntime, "preflight", stop)
    said = cli("run", house.save(), "--output", house.run)
    assert said.code == 130
    assert "stopped: nothing was begun and nothing was spent" in said.err
    assert not house.run.exists()

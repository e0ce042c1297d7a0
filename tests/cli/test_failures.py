"""What goes wrong while running: exit code 1, a message without private text, and a run that resumes to its end."""

import errno
import socket

import pytest

from privkt.privacy import Ledger

CANARY = "canary7f3a"


def charges(name="visits-a"):
    return [e.body for e in Ledger.open(name).entries() if e.kind == "charge"]


@pytest.fixture
def short_house(house, monkeypatch):
    monkeypatch.delenv("PRIVKT_DEBUG", raising=False)
    house.raw["fdkt"]["baselines"] = []
    return house


def fails_then_resumes(house, cli, message, mend=lambda: None):
    """The failed command's words; the resume ends the run under the one charge."""
    said = cli("run", house.save(), "--output", house.run)
    assert said.code == 1, said.err
    failure = said.err[said.err.index("failed: ") :]
    assert message in failure
    assert f"resume with: privkt run --resume {house.run}" in failure
    assert CANARY not in said.out + failure
    assert "Traceback" not in said.err
    mend()
    resumed = cli("run", "--resume", house.run)
    assert resumed.code == 0, resumed.err
    assert len(charges()) == 1
    return failure


class Once:
    """Stands in for a function and raises the first time."""

    def __init__(self, real, error):
        self.real, self.error = real, error

    def __call__(self, *arguments, **options):
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.real(*arguments, **options)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory; a smaller microbatch_size needs less"),
        (OSError(errno.ENOSPC, f"No space left on device: {CANARY}"), "the disk is full; make room"),
        (ValueError(f"cannot parse {CANARY}"), "an unexpected ValueError"),
    ],
    ids=["out of memory", "full disk", "unexpected"],
)
def test_a_failure_in_the_middle_is_resumable(short_house, cli, monkeypatch, error, message):
    from privkt_fdkt import results

    monkeypatch.setattr(results, "overlap_report", Once(results.overlap_report, error))
    fails_then_resumes(short_house, cli, message)


def test_a_damaged_checkpoint_is_named_and_may_be_deleted_under_the_same_charge(short_house, cli, monkeypatch):
    from privkt.dpsgd.training import PrivateTraining

    steps = []

    def stop(self, last, *, real=PrivateTraining._update):
        real(self, last)
        steps.append(1)
        if len(steps) == 2:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(PrivateTraining, "_update", stop)
        assert cli("run", short_house.save(), "--output", short_house.run).code == 1
    (checkpoint,) = short_house.run.glob("private/checkpoints/a/tune/shared/**/private-training/*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    said = cli("run", "--resume", short_house.run)
    assert said.code == 1
    assert f"checkpoint {checkpoint.name}: its checksum must match its content" in said.err
    assert "or delete it to begin this training again under the same charge" in said.err
    assert CANARY not in said.err
    checkpoint.unlink()
    assert cli("run", "--resume", short_house.run).code == 0
    assert len(charges()) == 1


def dead_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def remote(port):
    return {
        "backend": "openai",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "m",
        "max_retries": 1,
        "backoff": 0.01,
        "timeout": 10,
    }


def test_a_server_that_is_down_is_said_before_anything_is_spent(short_house, cli):
    short_house.raw["models"]["llm"] = remote(dead_port())
    short_house.raw["models"]["embedder"] = short_house.raw["models"]["slm"]
    said = cli("run", short_house.save(), "--output", short_house.run)
    assert said.code == 1, said.err
    assert "failed: " in said.err
    assert "127.0.0.1" in said.err
    assert not short_house.run.exists()
    assert cli("budget").out.startswith("no data set has a ledger yet")
    assert cli("plan", short_house.config).code == 0  # a plan asks no server


def test_a_server_that_answers_nonsense_leaves_a_run_that_resumes(short_house, cli, server, monkeypatch):
    """The demonstrations' prompts are answered with a web page, until another server takes the address over."""
    from privkt_openai import probing

    monkeypatch.setattr(probing, "_FOUND", {})
    port = server("--fault", "html", "--only", "Mood:", "--times", "4")
    short_house.raw["models"]["llm"] = remote(port)
    short_house.raw["models"]["embedder"] = short_house.raw["models"]["slm"]
    short_house.raw["fdkt"]["selection"] = False
    short_house.raw["fdkt"]["prompts"] = 2
    said = cli("run", short_house.save(), "--output", short_house.run)
    assert said.code == 1, said.err
    assert "step 'augment'" in said.err
    assert CANARY not in said.err[said.err.index("failed: ") :]
    crossed = {p: p.read_bytes() for p in (short_house.run / "outbound").rglob("*.arrow")}
    assert crossed
    for _ in range(6):  # every try uses up faulty answers
        resumed = cli("run", "--resume", short_house.run)
        if resumed.code == 0:
            break
    assert resumed.code == 0, resumed.err
    assert {p: p.read_bytes() for p in crossed} == crossed
    assert len(charges()) == 1

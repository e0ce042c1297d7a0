"""Whole runs of a toy method: order of events, seeds and clients, resume at every step, what is refused before."""

import json
import os
import shutil
import sqlite3
import time

import pytest

from privkt.contracts import BackendError
from privkt.privacy import BudgetExceeded, DataChanged, Ledger, RefusedInput
from privkt.runtime.errors import RunFailed
from privkt.runtime.local import LocalRuntime
from privkt.runtime.run_directory import RunDirectory


def test_a_run_gives_every_outcome(toys, tmp_path):
    config = toys.toy_config(tmp_path, clients=("a", "b"), rows=6)
    result = LocalRuntime(config, tmp_path / "run", toys.toy_manager()).run()
    assert {c: sorted(o) for c, o in result.outcomes.items()} == {"a": [0, 1], "b": [0, 1]}
    for client in "ab":
        for seed in (0, 1):
            outcome = result.outcomes[client][seed]
            assert outcome.scores["all"]["rows"] == 9.0
            assert outcome.notes["size"] == 6
            assert all(text.endswith(f"! {seed}") for text in outcome.notes["texts"])
    assert [(c.client, c.step, c.scope, c.rows) for c in result.crossed] == [
        ("a", "publish", "shared", 3),
        ("b", "publish", "shared", 3),
    ]
    assert {n: t.spent.epsilon for n, t in result.totals.items()} == {"a": 1.0, "b": 1.0}
    assert {n: t.left.epsilon for n, t in result.totals.items()} == {"a": 1.0, "b": 1.0}
    assert "epsilon = 1 (the maximum)" in result.statement
    assert "otherwise up to 2 (the sum)" in result.statement


def test_steps_run_once_or_once_a_seed_in_order(toys, tmp_path):
    config = toys.toy_config(tmp_path, clients=("a", "b"))
    LocalRuntime(config, tmp_path / "run", toys.toy_manager()).run()
    steps = [line for line in toys.Toy.log if line.split()[0] in ("publish", "augment", "learn")]
    assert steps == [
        "publish a",
        "publish b",
        "augment 0",
        "learn a 0",
        "learn b 0",
        "augment 1",
        "learn a 1",
        "learn b 1",
    ]
    assert toys.Toy.log.index("charged a") < toys.Toy.log.index("read a")
    assert toys.ToyDataset.reads == 2  # once a client: rows stay in memory


def test_settings_that_a_failed_step_read_are_corrected_and_nothing_is_paid_again(toys, tmp_path):
    with pytest.raises(RunFailed, match="the impossible was wanted"):
        LocalRuntime(
            toys.toy_config(tmp_path, toy={"wanted": "the impossible"}), tmp_path / "run", toys.toy_manager()
        ).run()
    sent = {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()}
    with pytest.raises(RefusedInput, match=r"toy\.epsilon differs"):
        LocalRuntime(toys.toy_config(tmp_path, toy={"epsilon": 0.5}), tmp_path / "run", toys.toy_manager()).run()
    result = LocalRuntime(toys.toy_config(tmp_path, toy={"wanted": "less"}), tmp_path / "run", toys.toy_manager()).run()
    assert sorted(result.outcomes["a"]) == [0, 1]
    assert result.totals["a"].spent.epsilon == 1.0
    assert toys.Toy.log.count("publish a") == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*") if p.is_file()} == sent
    with pytest.raises(RefusedInput, match=r"toy\.wanted differs"):  # every step that reads it is done
        LocalRuntime(toys.toy_config(tmp_path, toy={"wanted": "more"}), tmp_path / "run", toys.toy_manager()).run()


def entries(name):
    return [(e.kind, e.body) for e in Ledger.open(name).entries()]


def test_bytes_are_stored_recorded_and_sent_before_they_are_delivered(toys, tmp_path):
    seen = {}

    def look(what):
        if what == "augment 0":
            run = tmp_path / "run"
            seen["kinds"] = [kind for kind, _ in entries("data-a")]
            seen["file"] = (run / "outbound" / "a" / "publish.shared.arrow").exists()
            seen["manifest"] = (run / "outbound" / "manifest.jsonl").read_text().count("\n")

    toys.Toy.on_call = look
    LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    assert seen == {"kinds": ["opened", "charge", "stored", "sent"], "file": True, "manifest": 1}


class Crash(BaseException):
    """Like a kill: nothing may catch it."""


CALLS = ["publish a", "publish b", "augment 0", "learn a 0", "learn b 0", "augment 1", "learn a 1", "learn b 1"]


@pytest.mark.parametrize("at", CALLS)
def test_resume_at_every_step_draws_and_pays_once(toys, tmp_path, at):
    config, manager = toys.toy_config(tmp_path, clients=("a", "b")), toys.toy_manager()

    def crash(what):
        if what == at:
            raise Crash

    toys.Toy.on_call = crash
    with pytest.raises(Crash):
        LocalRuntime(config, tmp_path / "run", manager).run()
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "outbound").rglob("*.arrow")}
    done = CALLS[: CALLS.index(at)]
    toys.Toy.on_call = None
    toys.Toy.log.clear()
    result = LocalRuntime(config, tmp_path / "run", manager).run()
    assert [line for line in toys.Toy.log if line in CALLS] == CALLS[len(done) :]
    assert {p: p.read_bytes() for p in before} == before
    assert len(result.crossed) == 2
    for client in "ab":
        assert [kind for kind, _ in entries(f"data-{client}")] == ["opened", "charge", "stored", "sent"]
    assert sorted(result.outcomes["b"]) == [0, 1]


def test_a_finished_run_does_nothing_again(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    first = LocalRuntime(config, tmp_path / "run", manager).run()
    toys.Toy.log.clear()
    again = LocalRuntime(config, RunDirectory.open(tmp_path / "run"), manager).run()
    assert toys.Toy.log == []
    assert again.outcomes == first.outcomes
    assert again.crossed == first.crossed
    assert again.totals == first.totals


def test_final_models_lie_in_plain_places(toys, tmp_path):
    result = LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    for seed in (0, 1):
        place = moved / "private" / "models" / "a" / f"seed-{seed}"
        assert json.loads((place / "config.json").read_text()) == {"seed": seed}
    assert result.outcomes["a"][1].model is not None


def test_a_steps_folder_goes_when_the_step_is_done_and_not_before(toys, tmp_path, monkeypatch):
    """Checkpoints hold the state of private trainings; the model that a step returned is kept."""
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()

    def folders():
        return sorted(p.name for p in (tmp_path / "run" / "private" / "checkpoints").rglob("seed-*"))

    mark_done = RunDirectory.mark_done

    def killed_before(self, site, step, seed):
        if step == "learn":
            raise Crash
        mark_done(self, site, step, seed)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "mark_done", killed_before)
        with pytest.raises(Crash):
            LocalRuntime(config, tmp_path / "run", manager).run()
    assert folders() == ["seed-0"]
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "clear_step", lambda *step: None)  # as if killed after each mark
        LocalRuntime(config, tmp_path / "run", manager).run()
    assert folders() == ["seed-0", "seed-1", "seed-1"]
    result = LocalRuntime(config, tmp_path / "run", manager).run()
    assert folders() == []
    for seed in (0, 1):
        assert json.loads((result.outcomes["a"][seed].model.folder / "config.json").read_text()) == {"seed": seed}


def test_another_config_does_not_resume(toys, tmp_path):
    LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    with pytest.raises(RefusedInput, match=r"toy\.rows differs"):
        LocalRuntime(toys.toy_config(tmp_path, toy={"rows": 4}), tmp_path / "run", toys.toy_manager()).run()


@pytest.mark.parametrize(("at", "kind"), [("publish a", RefusedInput), ("learn a 0", RunFailed)])
def test_a_refusal_is_a_failure_half_way_once_something_is_spent(toys, tmp_path, at, kind):
    def refuse(what):
        if what == at:
            raise RefusedInput("toy: no")

    toys.Toy.on_call = refuse
    with pytest.raises((RefusedInput, RunFailed)) as caught:
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    assert type(caught.value) is kind
    assert ("--resume" in str(caught.value)) == (kind is RunFailed)


def test_one_clients_failure_leaves_the_run_resumable(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path, clients=("a", "b")), toys.toy_manager()

    def fail(what):
        if what == "learn b 0":
            raise ValueError("a private row")

    toys.Toy.on_call = fail
    with pytest.raises(RunFailed) as caught:
        LocalRuntime(config, tmp_path / "run", manager).run()
    message = str(caught.value)
    assert message.startswith("b, step 'learn': an unexpected ValueError at test_local.py:")
    assert message.endswith(f"resume with: privkt run --resume {tmp_path / 'run'}")
    assert "private row" not in message
    toys.Toy.on_call = None
    assert sorted(LocalRuntime(config, tmp_path / "run", manager).run().outcomes["b"]) == [0, 1]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "out of memory"),
        (OSError(28, "x"), "the disk is full"),
        (RuntimeError("CUDA out of memory"), "out of memory"),
    ],
)
def test_what_a_person_can_mend_is_said(toys, tmp_path, error, says):
    def fail(what):
        raise error

    toys.Toy.on_call = fail
    with pytest.raises(RunFailed, match=f"a, step 'publish': {says}"):
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()


def test_a_server_that_is_down_is_found_before_spending(toys, tmp_path, monkeypatch):
    def down(self):
        raise BackendError("models.llm: nobody answers at http://127.0.0.1:1; start the server")

    monkeypatch.setattr(toys.ToyBackend, "probe", down)
    remote = {"llm": {"backend": "toy", "model": "m", "remote": True}}
    with pytest.raises(BackendError, match="nobody answers"):
        LocalRuntime(toys.toy_config(tmp_path, models=remote), tmp_path / "run", toys.toy_manager()).run()
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "state").rglob("*.sqlite3"))


def test_a_server_that_goes_down_leaves_a_run_that_resumes(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()

    def down(what):
        if what == "augment 1":
            raise BackendError("models.llm: nobody answers; start the server")

    toys.Toy.on_call = down
    with pytest.raises(RunFailed, match=r"server, step 'augment': models\.llm: nobody answers; .*\n.*--resume"):
        LocalRuntime(config, tmp_path / "run", manager).run()
    toys.Toy.on_call = None
    assert sorted(LocalRuntime(config, tmp_path / "run", manager).run().outcomes["a"]) == [0, 1]


def test_a_damaged_checkpoint_is_named(toys, tmp_path):
    from privkt.dpsgd.errors import CheckpointError

    def fail(what):
        raise CheckpointError("checkpoint training.ckpt: is damaged; remove it")

    toys.Toy.on_call = fail
    with pytest.raises(RunFailed, match=r"a, step 'publish': checkpoint training\.ckpt: is damaged; remove it\n"):
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()


@pytest.mark.parametrize("at", ["publish a", "augment 0", "learn a 1"])
def test_a_disk_that_fills_up_leaves_a_run_that_resumes(toys, tmp_path, monkeypatch, at):
    config, manager, real, full = toys.toy_config(tmp_path), toys.toy_manager(), os.write, []

    def write(handle, data):
        if full:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    toys.Toy.on_call = lambda what: full.append(what) if what == at else None
    with pytest.raises(RunFailed, match=r"the disk is full; make room\nwhat is done is kept; resume with"):
        LocalRuntime(config, tmp_path / "run", manager).run()
    full.clear()
    toys.Toy.on_call = None
    result = LocalRuntime(config, tmp_path / "run", manager).run()
    assert sorted(result.outcomes["a"]) == [0, 1]
    assert [kind for kind, _ in entries("data-a")] == ["opened", "charge", "stored", "sent"]


def test_a_reviewers_no_stops_the_run_and_keeps_the_spend(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    with pytest.raises(RunFailed, match=r"the reviewer said no(.|\n)*--resume .*/run --review$"):
        LocalRuntime(config, tmp_path / "run", manager, review=lambda summary, message: False).run()
    assert Ledger.open("data-a").spent().epsilon == 1.0
    # Going on without a reviewer would undo the no.
    with pytest.raises(RefusedInput, match="began with a reviewer"):
        LocalRuntime(config, tmp_path / "run", manager).run()
    assert not list((tmp_path / "run" / "outbound").rglob("*.arrow"))
    assert LocalRuntime(config, tmp_path / "run", manager, review=lambda summary, message: True).run().crossed


def test_unprotected_text_reaches_only_models_of_this_process(toys, tmp_path):
    toy = {"unprotected": True}
    remote = {"llm": {"backend": "toy", "model": "m", "remote": True}}
    with pytest.raises(RunFailed, match="a release of kind none leaves only to models of this process"):
        LocalRuntime(toys.toy_config(tmp_path, toy=toy, models=remote), tmp_path / "one", toys.toy_manager()).run()
    result = LocalRuntime(toys.toy_config(tmp_path, toy=toy), tmp_path / "two", toys.toy_manager()).run()
    assert result.crossed == ()
    assert not result.totals["a"].spent.infinite
    forced = LocalRuntime(toys.toy_config(tmp_path, toy=toy), tmp_path / "three", toys.toy_manager(), force=True).run()
    assert [c.guarantee["kind"] for c in forced.crossed] == ["none"]
    assert forced.totals["a"].spent.infinite


def test_private_rows_are_locked_while_a_release_is_mapped(toys, tmp_path, monkeypatch):
    def peek(texts, suffix):
        caught["data"].load()

    caught = {}
    real = toys.Toy.publish

    def publish(self, site):
        caught["data"] = site.data
        return real(self, site)

    publish._privkt_step = real._privkt_step
    monkeypatch.setattr(toys.Toy, "publish", publish)
    monkeypatch.setattr(toys, "_with_suffix", peek)
    with pytest.raises(RunFailed, match="rows of the data set 'data-a': post-processing of a release must not read"):
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()


def test_ctrl_c_passes_through_and_resumes(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()

    def interrupt(what):
        time.sleep(0.3)
        raise KeyboardInterrupt

    toys.Toy.on_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        LocalRuntime(config, tmp_path / "run", manager).run()
    events = RunDirectory.open(tmp_path / "run").events()
    assert [e["event"] for e in events] == ["created", "running", "began", "interrupted"]
    toys.Toy.on_call = None
    assert LocalRuntime(config, tmp_path / "run", manager).run().outcomes["a"][0].scores
    assert events[3]["seconds"] >= 0.3


def test_refusals_come_before_spending_and_leave_nothing(toys, tmp_path):
    small = toys.toy_config(tmp_path, budget={"epsilon": 2.0, "cap_epsilon": 0.5})
    with pytest.raises(BudgetExceeded, match=r"asked epsilon = 1, .*left epsilon = 0\.5"):
        LocalRuntime(small, tmp_path / "run", toys.toy_manager()).run()
    assert [kind for kind, _ in entries("data-a")] == ["opened"]


def test_changed_data_is_refused_until_said(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    LocalRuntime(config, tmp_path / "one", manager).run()
    toys.write_rows(tmp_path / "a.jsonl", ["other"] * 6)
    with pytest.raises(DataChanged, match="--data-changed"):
        LocalRuntime(config, tmp_path / "two", manager).run()
    assert not (tmp_path / "two").exists()
    result = LocalRuntime(config, tmp_path / "two", manager, data_changed=True).run()
    assert result.totals["a"].spent.epsilon == 2.0


def test_an_old_copy_of_the_ledger_is_noticed_at_resume(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    Ledger.open_or_create("data-a", cap_epsilon=2, cap_delta=1e-5, size=6)
    path = Ledger.open("data-a").path
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    old = path.read_bytes()
    LocalRuntime(config, tmp_path / "run", manager).run()
    for file in path.parent.glob("data-a.sqlite3*"):
        file.unlink()
    path.write_bytes(old)
    with pytest.raises(RefusedInput, match="must hold the head that was kept elsewhere"):
        LocalRuntime(config, tmp_path / "run", manager).run()


def test_events_say_what_happened_and_nothing_else(toys, tmp_path):
    LocalRuntime(toys.toy_config(tmp_path, seeds=[0]), tmp_path / "run", toys.toy_manager()).run()
    lines = (tmp_path / "run" / "private" / "events.jsonl").read_text().splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert names == ["created", "running", "began", "crossed", "done", "began", "done", "began", "done", "finished"]


def test_progress_counts_the_steps(toys, tmp_path):
    class Task:
        def __init__(self):
            self.done = []

        def advance(self, amount=1, note=""):
            self.done.append(note)

    class Shown:
        def __init__(self):
            self.tasks = {}

        def task(self, title, total, unit=""):
            task = self.tasks[title, total] = Task()
            return task

    shown = Shown()
    LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager(), shown).run()
    ((title, total),) = shown.tasks
    assert (title, total) == ("toy: steps", 5)
    assert len(shown.tasks[title, total].done) == 5

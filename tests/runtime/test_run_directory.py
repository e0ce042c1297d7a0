"""A run on disk: made whole or not at all, private where it must be, held by one process."""

import stat
import subprocess
import sys

import pytest

import privkt
from privkt.config import parse_config
from privkt.privacy import RefusedInput
from privkt.runtime.errors import Damaged
from privkt.runtime.run_directory import RunDirectory


def config(**changes):
    raw = {
        "method": "echo",
        "budget": {"epsilon": 8},
        "clients": [{"name": "a", "data": {"name": "d", "size": 10, "path": "x.jsonl"}}],
        "models": {"llm": {"backend": "fake", "model": "m"}},
        "echo": {"rows": 3},
    }
    return parse_config({**raw, **changes})


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", config())


def test_two_halves_and_their_modes(run):
    assert {p.name for p in run.path.iterdir()} == {"outbound", "private"}
    assert stat.S_IMODE(run.private.stat().st_mode) == 0o700
    for path in run.private.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_open_finds_what_create_made(run):
    again = RunDirectory.open(run.path)
    assert again.run_id == run.run_id
    assert again.config() == config()
    assert len(run.run_id) == 32
    assert RunDirectory.create(run.path.with_name("other"), config()).run_id != run.run_id


def test_create_takes_only_new_or_empty_folders(tmp_path, run):
    with pytest.raises(RefusedInput, match="holds a run; resume it with: privkt run --resume"):
        RunDirectory.create(run.path, config())
    run.event("finished")
    with pytest.raises(RefusedInput, match=r"holds a finished run, .* name another folder with --output"):
        RunDirectory.create(run.path, config())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(RefusedInput, match="must be new or empty"):
        RunDirectory.create(tmp_path / "full", config())
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with pytest.raises(RefusedInput, match="must be new or empty"):
        RunDirectory.create(tmp_path / "full" / "thesis.tex", config())
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty", config())


def test_a_failed_create_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("privkt.runtime.run_directory.write_json", full)
    with pytest.raises(OSError, match="No space"):
        RunDirectory.create(tmp_path / "run", config())
    assert list(tmp_path.iterdir()) == []


def test_open_refuses_other_folders_and_versions(tmp_path, run, monkeypatch):
    with pytest.raises(RefusedInput, match="holds no run"):
        RunDirectory.open(tmp_path)
    monkeypatch.setattr(privkt, "__version__", "99")
    with pytest.raises(RefusedInput, match="resumes only with the code that began it"):
        RunDirectory.open(run.path)


def test_another_config_is_refused_by_key(run):
    run.check_config(config())
    with pytest.raises(RefusedInput, match=r"budget\.epsilon differs; put it back"):
        run.check_config(config(budget={"epsilon": 9}))
    with pytest.raises(RefusedInput, match=r"echo\.rows differs \(and 1 more\)"):
        run.check_config(config(echo={"rows": 4}, seeds=[1]))


def test_settings_that_no_step_has_read_may_differ(run):
    read_by, other = {"rows": "draw"}, config(echo={"rows": 4})
    assert run.check_config(config(), read_by) == frozenset()
    assert run.check_config(other, read_by) == {"draw"}
    with pytest.raises(RefusedInput, match=r"echo\.lines differs;"):
        run.check_config(config(echo={"rows": 4, "lines": 1}), read_by)
    with pytest.raises(RefusedInput, match=r"budget\.epsilon differs \(and 1 more\)"):
        run.check_config(config(budget={"epsilon": 9}, echo={"rows": 4}), {})
    kept, redone = run.step_folder("a", "learn", 0), run.step_folder("a", "draw", 0)
    run.take_config(other, {"draw"})
    assert run.config() == other
    assert kept.exists()
    assert not redone.exists()
    assert run.events()[-1]["steps"] == ["draw"]


@pytest.mark.parametrize(
    "file",
    [
        "private/done/a/draw.seed-0.json",
        "private/pending/a/draw.seed-0.json",
        "private/results/a/seed-0/draw.result.json",
        "outbound/a/draw.seed-0.arrow",
    ],
)
def test_settings_of_a_step_that_has_a_result_stay(run, file):
    (run.path / file).parent.mkdir(parents=True, exist_ok=True)
    (run.path / file).touch()
    with pytest.raises(RefusedInput, match=r"echo\.rows differs"):
        run.check_config(config(echo={"rows": 4}), {"rows": "draw"})


def test_damage_is_named(run):
    (run.private / "config.json").write_text('{"method": ')
    with pytest.raises(Damaged, match=r"config\.json: is damaged"):
        run.config()
    (run.private / "config.json").write_text('{"method": "echo"}')
    with pytest.raises(Damaged, match="key 'budget' is missing"):
        run.config()


TRY_LOCK = """
import sys
from privkt.runtime.run_directory import RunDirectory
with RunDirectory.open(sys.argv[1]).locked():
    pass
"""


def test_one_process_at_a_time(run):
    with run.locked():
        other = subprocess.run(
            [sys.executable, "-c", TRY_LOCK, str(run.path)], capture_output=True, text=True, timeout=120
        )
    assert other.returncode != 0
    assert "another process is running it" in other.stderr
    with run.locked():
        pass


def test_done_steps_are_per_site_and_seed(run):
    run.mark_done("a", "make", None)
    run.mark_done("a", "learn", 1)
    assert RunDirectory.open(run.path).is_done("a", "make", None)
    assert run.is_done("a", "learn", 1)
    assert not run.is_done("a", "learn", 2)
    assert not run.is_done("b", "make", None)


def test_events_survive_a_cut_line(run):
    run.event("began", step="make")
    with (run.private / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    run.event("done", rows=3)
    assert [e["event"] for e in run.events()] == ["created", "began", "done"]
    assert run.events()[-1]["rows"] == 3


def test_heads_are_kept_by_data_set(run):
    run.keep_head("d", "1f")
    run.keep_head("e", "2f")
    run.keep_head("d", "3f")
    assert RunDirectory.open(run.path).heads() == {"d": "3f", "e": "2f"}


def test_site_names_are_file_names(run):
    for bad in ("", "../a", "a/b", "a\0b"):
        with pytest.raises(RefusedInput, match="site"):
            run.state(bad, None)

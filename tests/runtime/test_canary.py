"""A canary in text, label, path and in values that break parsing: nothing that a run writes or says repeats it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from privkt.runtime.local import LocalRuntime

CANARY = "canary-7f3a"


def said_by(call, caplog, capfd):
    """Everything that reaches a person or a log: the error, the log, both streams."""
    caplog.set_level(logging.DEBUG)
    error = ""
    try:
        call()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    out, err = capfd.readouterr()
    return error, f"{error}\n{caplog.text}\n{out}\n{err}"


def written(folder, *but):
    """Every file's name and content below a folder, but for the private copies that must hold the text."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and not any(str(place).startswith(b) for b in but):
            yield place, str(place).encode() + b"\n" + path.read_bytes()


def canary_config(toys, tmp_path, **toy):
    home = tmp_path / CANARY
    home.mkdir()
    return toys.toy_config(home, toy=toy)


def test_a_whole_run_repeats_no_private_text(toys, tmp_path, caplog, capfd):
    config = canary_config(toys, tmp_path)
    toys.write_rows(Path(config.clients[0].data.path), [f"{CANARY} number {i}" for i in range(6)])
    run = tmp_path / "run"
    error, said = said_by(lambda: LocalRuntime(config, run, toys.toy_manager()).run(), caplog, capfd)
    assert error == ""
    assert CANARY not in said
    for place, content in written(run, "private/config.json"):  # the resolved config has the path
        assert CANARY.encode() not in content, place
    for place, content in written(tmp_path / "state"):
        assert CANARY.encode() not in content, place


@pytest.mark.parametrize("at", ["publish a", "augment 0", "learn a 0"])
@pytest.mark.parametrize(
    "error", [ValueError, KeyError, UnicodeDecodeError, OSError, RuntimeError], ids=lambda e: e.__name__
)
def test_failures_in_steps_repeat_no_private_text(toys, tmp_path, caplog, capfd, at, error):
    def fail(what):
        if what == at:
            if error is UnicodeDecodeError:
                (CANARY.encode() + b"\xff").decode()
            raise error(f"cannot parse {CANARY!r}")

    toys.Toy.on_call = fail
    config, run = canary_config(toys, tmp_path), tmp_path / "run"
    error_text, said = said_by(lambda: LocalRuntime(config, run, toys.toy_manager()).run(), caplog, capfd)
    assert f"an unexpected {error.__name__}" in error_text
    assert CANARY not in said
    for place, content in written(run, "private/config.json"):
        assert CANARY.encode() not in content, place


def test_a_traceback_on_the_terminal_repeats_no_private_text(toys, tmp_path):
    """What Python prints for an error that nobody catches includes its causes."""
    program = (
        "import sys, runtime_toys as t\n"
        "from pathlib import Path\n"
        f"def fail(what): raise ValueError('cannot parse ' + '{CANARY[:6]}' + '{CANARY[6:]}')\n"
        "t.Toy.on_call = fail\n"
        "folder = Path(sys.argv[1])\n"
        "t.LocalRuntime(t.toy_config(folder), folder / 'run', t.toy_manager()).run()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(toys.__file__).parent)}
    environment.pop("PRIVKT_DEBUG", None)
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "an unexpected ValueError" in done.stderr
    assert CANARY not in done.stdout + done.stderr


BROKEN = {
    "a label that is not declared": f'{{"text": "t", "label": "{CANARY}"}}',
    "a line that is not JSON": f'{{"text": "{CANARY}',
    "a row without its column": f'{{"{CANARY}": "t", "label": "x"}}',
    "a text that is no string": f'{{"text": ["{CANARY}"], "label": "x"}}',
    "text that is not UTF-8": None,
}


@pytest.mark.parametrize("what", BROKEN)
def test_rows_that_break_reading_are_refused_without_their_content(toys, tmp_path, caplog, capfd, what):
    config = canary_config(toys, tmp_path)
    path = Path(config.clients[0].data.path)
    lines = path.read_bytes().splitlines()
    line = BROKEN[what]
    lines[3] = b'{"text": "' + CANARY.encode() + b'\xff", "label": "x"}' if line is None else line.encode()
    path.write_bytes(b"\n".join(lines))
    run = tmp_path / "run"
    error, said = said_by(lambda: LocalRuntime(config, run, toys.toy_manager()).run(), caplog, capfd)
    assert error.startswith("RefusedInput: client 'a'")
    assert CANARY not in said
    assert not run.exists()
    assert not list((tmp_path / "state").rglob("*.sqlite3"))

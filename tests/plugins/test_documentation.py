"""docs/plugins.md speaks of every hook, status and suite, and its code runs; every hook has a test."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pluggy
import pytest

from privkt.contracts import DataSource
from privkt.plugins import PluginManager, Status, hookspec
from privkt.plugins import types as declarations
from privkt.plugins.discovery import Candidate
from privkt.plugins.loading import HOOKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PIECES = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def specified():
    manager = pluggy.PluginManager(hookspec.PROJECT)
    manager.add_hookspecs(hookspec)
    return sorted(name for name in vars(manager.hook) if not name.startswith("_"))


def test_the_manager_knows_every_hook():
    assert specified() == sorted(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented_with_its_arguments_and_tested(hook):
    arguments = ", ".join(getattr(hookspec, hook).__code__.co_varnames)
    assert f"### `{hook}({arguments})`" in PAGE
    tests = [
        p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py") if p.name != Path(__file__).name
    ]
    assert any(f"{hook}=" in text or f"def {hook}(" in text for text in tests), f"no test implements {hook}"


def test_declarations_are_documented_with_their_fields():
    for name in ("MechanismSpec", "MethodSpec", "BackendSpec", "DatasetSpec", "EvaluatorSpec"):
        fields = getattr(declarations, name).__dataclass_fields__
        assert f"`{name}({', '.join(fields)})`" in PAGE.replace("\n", " ")


def test_statuses_and_switches_are_documented():
    assert [row for row in re.findall(r"^\| (\w+) \|", PAGE, re.MULTILINE) if row != "status"] == list(Status)
    assert "PRIVKT_LOAD_PLUGINS" in PAGE
    assert "PRIVKT_DISABLE_PLUGINS" in PAGE


def test_the_smallest_plugin_works(tmp_path, monkeypatch):
    project = tomllib.loads(next(text for kind, text in PIECES if kind == "toml"))["project"]
    (entry, module), *_ = project["entry-points"]["privkt"].items()
    code = next(text for kind, text in PIECES if kind == "python")
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    manager = PluginManager([Candidate(project["name"], entry, project["version"], lambda: __import__(module))], {})
    assert [p.identity for p in manager.plugins()] == ["acme-privkt:rows"]
    assert manager.find("dataset", "counted").full_name == "acme-privkt:counted"
    rows = manager.create("dataset", "counted", DataSource("counted", "text", options={"n": 2})).load()
    assert rows.text == ("text 0", "text 1")


def test_the_suite_in_the_page_passes(tmp_path):
    code = [text for kind, text in PIECES if kind == "python"][1]
    (tmp_path / "test_page.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout

"""Planted faults: each suite fails exactly where a plugin is wrong, and passes where it is right."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("module", ["faulty_mechanisms", "faulty_methods", "faulty_backends", "faulty_tokens"])
def test_the_suite_finds_each_planted_fault_and_nothing_else(module):
    flags = ["-q", "-rf", "--tb=no", "-p", "no:cacheprovider", f"--rootdir={HERE}", "-c", os.devnull]
    environ = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *flags, str(HERE / f"{module}.py")],
        cwd=HERE,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[str]] = {name: set() for name in planted(module)}
    for name, test in re.findall(r"^FAILED \S+::(\w+)::(\w+)", done.stdout, re.MULTILINE):
        found[name].add(test)
    assert found == planted(module)
    assert "error" not in done.stdout.splitlines()[-1]


def planted(module):
    spec = importlib.util.spec_from_file_location(module, HERE / f"{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.FOUND

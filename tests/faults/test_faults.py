"""Each planted fault must make a named test fail: the tests are held to the same standard as the code.

A patch in `patches/` begins with lines `test: FILE::NAME` saying which tests must fail once it is applied. The same
tests must pass without it, so that a test that always fails proves nothing.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATCHES = sorted((HERE / "patches").glob("*.patch"))
PACKAGES = (
    "privkt",
    "privkt_datasets",
    "privkt_mechanisms",
    "privkt_transformers",
    "privkt_openai",
    "privkt_fdkt",
    "privkt_fedcot",
    "privkt_post",
    "privkt_knowledgesg",
    "privkt_dp_synth",
)
FAILED = 1  # pytest's exit code for "tests ran and some failed"


def named_tests(patch: Path) -> list[str]:
    lines = patch.read_text().splitlines()
    return [line.removeprefix("test:").strip() for line in lines if line.startswith("test:")]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A copy of the sources as installed, with the native module beside them."""
    tree = tmp_path_factory.mktemp("pristine")
    for name in PACKAGES:
        source = Path(importlib.import_module(name).__file__).parent
        shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    native = importlib.import_module("privkt.kernels._native").__file__
    shutil.copy2(native, tree / "privkt" / "kernels")
    return tree


def run(tree: Path, tests: list[str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(HERE / "run_faulty.py"), str(tree), *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_there_are_faults_to_plant():
    assert len(PATCHES) >= 6


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.stem)
def test_planted_fault_is_caught(patch, pristine, tmp_path):
    tests = named_tests(patch)
    assert tests, f"{patch.name} names no test"
    tree = tmp_path / "faulty"
    shutil.copytree(pristine, tree)
    applied = subprocess.run(
        ["git", "apply", "--unsafe-paths", f"--directory={tree}", str(patch)], cwd="/", capture_output=True, text=True
    )
    assert applied.returncode == 0, f"{patch.name} no longer applies; renew it: {applied.stderr}"
    for test in tests:
        result = run(tree, [test])
        assert result.returncode == FAILED, (
            f"{test} did not notice {patch.stem}:\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
        )


def test_the_named_tests_pass_without_a_fault(pristine):
    tests = sorted({test for patch in PATCHES for test in named_tests(patch)})
    result = run(pristine, tests)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]

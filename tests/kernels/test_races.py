"""The blocks of threads that are CUDA kernels, with a thread of the CPU for each: no two meet without a barrier."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = "WARNING: ThreadSanitizer: data race"


PROGRAMS = {"races": ["blocks"], "token_races": ["blocks", "token_blocks"]}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs g++ or clang++")
    made = tmp_path_factory.mktemp("races") / request.param
    sources = [str(ROOT / "tests" / "kernels" / f"{request.param}.cpp")]
    sources += [str(ROOT / "csrc" / "cpu" / f"{stem}.cpp") for stem in PROGRAMS[request.param]]
    flags = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-fsanitize=thread",
        "-pthread",
        "-I",
        str(ROOT / "csrc/include"),
    ]
    done = subprocess.run([compiler, *flags, *sources, "-o", str(made)], capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "tsan" in done.stderr:
        pytest.skip("needs the compiler's library for finding races")
    assert done.returncode == 0, done.stderr
    return made


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, env=environment)
    if "FATAL: ThreadSanitizer" in done.stderr:
        pytest.skip("needs a system whose memory layout the search for races knows")
    return done


def test_threads_of_a_block_do_not_race_and_have_the_bits_of_the_played_ones(program: Path) -> None:
    done = run(program)
    assert REPORT not in done.stderr, done.stderr[:3000]
    assert (done.returncode, done.stdout) == (0, "")


def test_a_barrier_too_few_would_be_found(program: Path) -> None:
    assert REPORT in run(program, "without").stderr

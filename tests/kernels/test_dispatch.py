"""Every instruction set gives the same bits, and a processor gets the best that it has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from privkt.kernels import build_info, native

SCRIPT = Path(__file__).with_name("native_digest.py")


def run(isa: str | None, *emulator: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PRIVKT_CPU_ISA"}
    if isa is not None:
        environment["PRIVKT_CPU_ISA"] = isa
    path = native.module().__file__
    assert path is not None
    command = [*emulator, sys.executable, "-S", str(SCRIPT), path]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def scalar_digest() -> str:
    done = run("scalar")
    assert done.returncode == 0, done.stderr
    isa, digest = done.stdout.split()
    assert isa == "scalar"
    return digest


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_instruction_sets_agree_in_every_bit(isa: str, scalar_digest: str) -> None:
    if isa not in build_info()["cpu_isas"]:
        pytest.skip(f"this build has no {isa}")
    done = run(isa)
    if "must name instructions that this processor has" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa, scalar_digest]


@pytest.mark.parametrize(("processor", "isa"), [("Nehalem", "scalar"), ("Haswell", "avx2")])
def test_an_older_processor_gets_what_it_has(processor: str, isa: str, scalar_digest: str) -> None:
    emulator = shutil.which("qemu-x86_64")
    if emulator is None or "avx2" not in build_info()["cpu_isas"]:
        pytest.skip("needs qemu-x86_64 and an x86-64 build")
    done = run(None, emulator, "-cpu", processor)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa, scalar_digest]


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run("sse9")
    assert done.returncode != 0
    assert "PRIVKT_CPU_ISA: must be one of scalar" in done.stderr
    assert "got 'sse9'; unset it to let the processor decide" in done.stderr

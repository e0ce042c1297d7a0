"""The scalar variant on a processor that is not x86-64, emulated; and what an instruction set's objects may export."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN_STEMS = ("exponential", "flips", "nearest", "rejection", "tables")
STEMS = (
    "discrete",
    "embeddings",
    "factors",
    "gram",
    "head",
    "noise",
    "products",
    "sums",
    "tied",
    "updates",
    *TOKEN_STEMS,
)
SOURCES = [ROOT / "csrc" / "cpu" / f"{stem}.cpp" for stem in (*STEMS, "dispatch")]
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]


def compiler(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"needs {' or '.join(names)}")
    return found


def digest(compile_with: str, folder: Path, *emulator: str) -> str:
    program = folder / Path(compile_with).name
    harness = Path(__file__).with_name("cross_digest.cpp")
    include = ["-I", str(ROOT / "csrc" / "include"), "-DPRIVKT_ISA=scalar", "-static"]
    subprocess.run([compile_with, *FLAGS, *include, *map(str, SOURCES), str(harness), "-o", str(program)], check=True)
    done = subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True)
    return done.stdout


def test_arm_computes_the_bits_of_x86(tmp_path: Path) -> None:
    cross, emulator = compiler("aarch64-linux-gnu-g++"), compiler("qemu-aarch64")
    here = digest(compiler("g++", "c++"), tmp_path)
    assert here.startswith("scalar ")
    assert digest(cross, tmp_path, emulator) == here


def test_clang_computes_the_bits_of_gcc(tmp_path: Path) -> None:
    assert digest(compiler("clang++"), tmp_path) == digest(compiler("g++"), tmp_path)


@pytest.mark.parametrize("stem", STEMS)
def test_objects_of_an_instruction_set_export_no_shared_inline_code(stem: str, tmp_path: Path) -> None:
    """A weak symbol of an AVX-512 object could be chosen for every processor by the linker."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("instruction sets are chosen on x86-64 only")
    nm, build = compiler("nm"), compiler("g++", "c++")
    made = tmp_path / "object.o"
    source = str(ROOT / "csrc" / "cpu" / f"{stem}.cpp")
    include = ["-I", str(ROOT / "csrc" / "include"), "-DPRIVKT_ISA=avx512", "-mavx512f", "-fPIC"]
    subprocess.run([build, *FLAGS, *include, "-c", source, "-o", str(made)], check=True)
    symbols = subprocess.run([nm, "-C", "--defined-only", str(made)], check=True, capture_output=True, text=True).stdout
    exported = [line.split(maxsplit=2)[1:] for line in symbols.splitlines() if line.split(maxsplit=2)[1] in "TWVuD"]
    assert exported
    assert all(kind == "T" and name.startswith("privkt::avx512::") for kind, name in exported)

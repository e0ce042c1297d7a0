"""Faults planted in the token kernels' blocks: each makes the played ones differ from the CPU's, or threads race."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BLOCKS = Path("csrc/include/privkt/blocks")
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-DPRIVKT_ISA=scalar", "-pthread"]
pytestmark = pytest.mark.slow

WAITS, DOES_NOT = (
    "team.each([&](int thread, {} &mine) {{\n      {}",
    "team.apart([&](int thread, {} &mine) {{\n      {}",
)
JOINS = ("Registers", "PRIVKT_UNROLLED\n      for (int slot = 0; slot < kRowSlots; ++slot) shared.sums")
FILLS = ("auto", "bring(panels")

# name: file, what stands there, what is planted
DIFFERENCES = {
    "id off by a tile": ("exponential.h", "out[place] = from + thread", "out[place] = from + 256 + thread"),
    "noise shared between rows": ("exponential.h", "p.draws.offset + uint64_t(place))", "p.draws.offset)"),
    "a stretch's end is the word before's": ("exponential.h", "rest >= before && rest <", "rest > before && rest <="),
    "half of a tile is summed": ("exponential.h", "smaller(from + kTokenTile, p.x", "smaller(from + kPanel, p.x"),
    "a fragment's rows in the place of its bytes": (
        "bytes.h",
        "i % 2 * 8][k / 4 + lane % 4 + i / 2 * 4]",
        "i / 2 * 8][k / 4 + lane % 4 + i % 2 * 4]",
    ),
    "bytes beyond the row are multiplied": ("bytes.h", "smaller(kCopied, x.words.width - k)", "kCopied"),
    "copies not waited for": ("bytes.h", "wait_for_all_but<kStages - 2>", "wait_for_all_but<kStages - 1>"),
    "a place filled while it is multiplied": ("bytes.h", "at.stage + 1 == kStages ?", "at.stage + 2 == kStages ?"),
    "ids without their panel": ("nearest.h", "| uint64_t(word + column);", "| uint64_t(column);"),
    "lists overflow": ("nearest.h", "if (!crowded) return;", "if (!crowded || p.k < 9) return;"),
    "a place of the list too late": ("rejection.h", "if (open && u < sum)", "if (open && u + sum / 2 < sum)"),
    "words of the list drawn again": ("rejection.h", "& (listed - 1);", ";"),
    "every panel has the same coins": ("flips.h", "uint64_t(word / 16) << kTokenBits", "uint64_t(group) << kTokenBits"),
    "the choice takes the coins' words": ("flips.h", "stream.used = kChoiceBlock * 8;", "stream.used = 0;"),
}
RACES = {
    "a place is filled without a barrier": ("bytes.h", WAITS.format(*FILLS), DOES_NOT.format(*FILLS)),
    "sums are joined without a barrier": ("exponential.h", WAITS.format(*JOINS), DOES_NOT.format(*JOINS)),
    "a list is counted on before all have looked": ("nearest.h", "team.each([](int, Registers &) {});", ""),
}


def compiler() -> str:
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("needs g++ or clang++")
    return found


def build(made: Path, *arguments: str) -> None:
    done = subprocess.run(
        [compiler(), *FLAGS, *arguments, "-o", str(made)], capture_output=True, text=True, check=False
    )
    if "cannot find" in done.stderr and "tsan" in done.stderr:
        pytest.skip("needs the compiler's library for finding races")
    assert done.returncode == 0, done.stderr[-3000:]


def run(program: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=300, env=environment)
    if "FATAL: ThreadSanitizer" in done.stderr:
        pytest.skip("needs a system whose memory layout the search for races knows")
    return done


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What no fault is planted in, compiled once."""
    folder = tmp_path_factory.mktemp("objects")
    cpu = ROOT / "csrc" / "cpu"
    sources = [cpu / f"{stem}.cpp" for stem in ("exponential", "nearest", "rejection", "flips", "blocks")]
    for source in (*sources, HERE / "token_check.cpp"):
        build(folder / f"{source.stem}.o", "-I", str(ROOT / "csrc/include"), "-c", str(source))
    return sorted(map(str, folder.iterdir()))


def planted(folder: Path, file: str, before: str, after: str) -> Path:
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    path = folder / BLOCKS / file
    text = path.read_text()
    assert before in text, f"{file} no longer has what the fault replaces; renew it"
    path.write_text(text.replace(before, after))
    return folder / "csrc"


def test_without_a_fault_nothing_differs(objects: list[str], tmp_path: Path) -> None:
    source = ROOT / "csrc"
    build(tmp_path / "check", "-I", str(source / "include"), str(source / "cpu" / "token_blocks.cpp"), *objects)
    done = run(tmp_path / "check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("fault", DIFFERENCES)
def test_a_fault_shows_against_the_cpu(objects: list[str], tmp_path: Path, fault: str) -> None:
    source = planted(tmp_path, *DIFFERENCES[fault])
    build(tmp_path / "check", "-I", str(source / "include"), str(source / "cpu" / "token_blocks.cpp"), *objects)
    done = run(tmp_path / "check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differs" in done.stdout


@pytest.mark.parametrize("fault", RACES)
def test_a_missing_barrier_is_a_race(tmp_path: Path, fault: str) -> None:
    source = planted(tmp_path, *RACES[fault])
    sources = [
        str(HERE / "token_races.cpp"),
        *(str(source / "cpu" / f"{stem}.cpp") for stem in ("blocks", "token_blocks")),
    ]
    build(tmp_path / "races", "-fsanitize=thread", "-I", str(source / "include"), *sources)
    assert "WARNING: ThreadSanitizer: data race" in run(tmp_path / "races").stderr

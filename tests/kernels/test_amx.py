"""The variant for AMX's tiles, which few machines have: its source over tiles played in plain C++, and who gets it."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from privkt.kernels import build_info, native

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STEMS = ("exponential", "flips", "nearest", "tables")
VECTORS = ["-mavx2", "-mfma", "-mbmi2", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
FAULTS = {  # file, what stands there, what is put in its place
    "tables of another's shapes": ("amx_tiles.h", "    _tile_loadconfig(shapes);\n", ""),
    "shapes not given back": ("amx_tiles.h", "      _tile_loadconfig(before_);\n", "      _tile_release();\n"),
    "the first queries twice": ("amx_tiles.h", "_tile_dpbssd(2, 5, 6)", "_tile_dpbssd(2, 4, 6)"),
    "sums not begun at zero": ("amx_tiles.h", "  _tile_zero(3);\n", ""),
    "a step too few": ("amx_tiles.h", "t < lanes;", "t + kTileLanes < lanes || t == 0;"),
    "the diagonal twice": ("tables.cpp", "if (u != v) totals", "totals"),
    "the other word's half forgotten": ("tables.cpp", "kLongs; ++i) totals[word", "0; ++i) totals[word"),
    "the diagonal's tiles left out": ("tables.cpp", "from + first <= last_word", "from + first + 32 <= last_word"),
    "a lower number of an equal passed over": ("keys.h", "_mm512_cmple_epi32_mask", "_mm512_cmplt_epi32_mask"),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory):
    """Compiles csrc/cpu as it is, or with one text of it replaced, against the scalar kernels."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs g++ or clang++ on x86-64")
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs AVX-512, which the variant's other steps use")
    flags = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-I", str(ROOT / "csrc" / "include")]
    played = ["-DPRIVKT_ISA=tiles", f'-DPRIVKT_PLAYED_AMX="{HERE / "played_amx.h"}"', *VECTORS]
    kept = tmp_path_factory.mktemp("objects")

    def compiled(source: Path, made: Path, *options: str) -> str:
        subprocess.run([*flags, *options, "-c", str(source), "-o", str(made)], check=True, capture_output=True)
        return str(made)

    cpu = ROOT / "csrc" / "cpu"
    common = [compiled(HERE / "played_amx.cpp", kept / "main.o"), compiled(cpu / "amx_check.cpp", kept / "check.o")]
    common += [compiled(cpu / f"{stem}.cpp", kept / f"scalar_{stem}.o", "-DPRIVKT_ISA=scalar") for stem in STEMS]
    whole = {stem: compiled(cpu / f"{stem}.cpp", kept / f"{stem}.o", *played) for stem in STEMS}

    def make(folder: Path, fault: tuple[str, str, str] | None = None) -> Path:
        objects = dict(whole)
        if fault is not None:
            name, stands, put = fault
            shutil.copytree(cpu, folder / "cpu")
            text = (folder / "cpu" / name).read_text()
            assert text.count(stands) == 1, f"{name} no longer holds {stands!r} once; renew the fault"
            (folder / "cpu" / name).write_text(text.replace(stands, put))
            for stem in ("tables",) if name != "amx_tiles.h" else ("nearest",):
                objects[stem] = compiled(folder / "cpu" / f"{stem}.cpp", folder / f"{stem}.o", *played)
        program = folder / "played"
        subprocess.run([compiler, *common, *objects.values(), "-o", str(program)], check=True, capture_output=True)
        return program

    return make


def test_played_tiles_compute_the_bits_of_scalars(build, tmp_path: Path) -> None:
    """Totals, draws, nearest words, extremes, flips and whole tables, in odd numbers of words, widths and queries."""
    done = subprocess.run([str(build(tmp_path))], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(build, name: str, tmp_path: Path) -> None:
    done = subprocess.run([str(build(tmp_path, FAULTS[name]))], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 3), "no difference was found"
    if FAULTS[name][0] == "amx_tiles.h" and done.returncode == 1 and "shapes" not in name:
        assert "the check at the first use finds it" in done.stdout


def test_who_asks_for_tiles_gets_them_or_hears_why_not() -> None:
    info = build_info()
    script = "from privkt.kernels import native; print(native.module().token_isa(''), native.module().cpu_isa())"
    environment = {**os.environ, "PRIVKT_CPU_ISA": "amx"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, cwd="/"
    )
    if "amx" not in native.module().TOKEN_ISAS.split(","):
        assert "not built" in info["amx_left_out"]
        assert done.returncode != 0
    elif info["amx_left_out"]:
        assert f"got 'amx' ({info['amx_left_out']}); leave it out" in done.stderr
    else:
        assert done.stdout.split() == ["amx", "avx512"]
        assert info["token_isa"] == "amx"

"""The errors that the noise's bound assumes, measured against 60-digit arithmetic where they are largest."""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

from privkt.kernels import build_info, native

TOP = 2**64
EDGES = [2**44, 2**44 + 1, TOP - 2**44 - 1, 0xB504F33400000000, 0xB504F33400000000 - 1, 2**63, 2**63 - 1, 2**62]
SIXTEENTHS = [edge + side for i in range(1, 17) for edge in (2**63 + i * 2**59,) for side in (-(2**50) - 1, -1, 0)]
QUICK_EDGES = [2**44, 2**44 + 1, TOP - 2**50 - 1, *(edge for edge in SIXTEENTHS if edge < TOP - 2**50)]
EXTREMES = [0, 1, 2, 2**20, TOP - 2**20, TOP - 2, TOP - 1]
ANGLES = [quarter * 2**62 + turn for quarter in range(4) for turn in (0, 1, 2**61 - 1, 2**61, 2**61 + 1, 2**62 - 1)]


def exact(radius: int, angle: int) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The normals of the 128-bit uniforms (radius + 1/2) / 2^128, (angle + 1/2) / 2^128."""
    with mpmath.workdps(60):
        u = (mpmath.mpf(radius) + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** 128
        v = (mpmath.mpf(angle) + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** 128
        r = mpmath.sqrt(-2 * mpmath.log(u))
        return r * mpmath.cos(2 * mpmath.pi * v), r * mpmath.sin(2 * mpmath.pi * v)


def uniforms(count: int, edges: list[int]) -> list[tuple[int, int, int, int]]:
    source = random.Random(0)
    word = lambda: source.getrandbits(64)  # noqa: E731
    cases = [(word(), word(), word(), word()) for _ in range(count)]
    cases += [(radius, angle, word(), word()) for radius in edges for angle in ANGLES]
    cases += [(word() >> source.randrange(60), word(), word(), word()) for _ in range(count)]
    return cases + [(TOP - 1 - (word() >> source.randrange(60)), word(), word(), word()) for _ in range(count)]


def furthest(radius: int, angle: int, first: float, second: float, limit: tuple[float, float]) -> mpmath.mpf:
    """The larger error of the two normals over what their bits below 64 may be, in units of the stated limit."""
    relative, floor = limit
    with mpmath.workdps(60):
        return max(
            abs(z - got) / (relative * abs(mpmath.mpf(got)) + floor)
            for low in (0, TOP - 1)
            for z, got in zip(exact(radius << 64 | low, angle << 64 | low), (first, second), strict=True)
        )


def test_the_fast_path_is_within_its_error_for_every_lower_half_of_the_uniforms() -> None:
    held = 0
    for radius, angle, *_ in uniforms(1500, EDGES):
        first, second, in_range = native.module().fast_normals(radius, angle)
        assert in_range == (2**44 <= radius < TOP - 2**44)
        if in_range:
            held += 1
            assert furthest(radius, angle, first, second, native.module().FAST_ERROR) <= 1
    assert held > 2000


_ELSEWHERE = """
import sys
import numpy as np
from privkt.kernels import native

given, normals = np.load(sys.argv[1]), np.empty((2, np.load(sys.argv[1]).shape[1]))
native.module().quick_normals_cpu(*(x.ctypes.data for x in given), given.shape[1], *(x.ctypes.data for x in normals))
np.save(sys.argv[2], normals)
print(native.module().cpu_isa())
"""


def quick_normals(uniform: np.ndarray, isa: str, folder: Path) -> np.ndarray:
    """The quick path of one instruction set, in a process of its own: each computes with its own steps."""
    np.save(folder / "given.npy", uniform)
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(folder / "given.npy"), str(folder / "found.npy")],
        env={**os.environ, "PRIVKT_CPU_ISA": isa}, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if "must name instructions that this processor has" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.stdout.split() == [isa], done.stderr
    return np.load(folder / "found.npy")


@pytest.mark.parametrize("isa", build_info()["cpu_isas"])
def test_the_quick_path_is_within_its_error_for_every_lower_half_of_the_uniforms(isa: str, tmp_path: Path) -> None:
    """And it knows where it is: NaN marks what it leaves to the fast path."""
    radii, angles = uniform = np.array([case[:2] for case in uniforms(1500, QUICK_EDGES)], np.uint64).T.copy()
    normals = quick_normals(uniform, isa, tmp_path)
    held = 0
    for radius, angle, first, second in zip(radii.tolist(), angles.tolist(), *normals.tolist(), strict=True):
        inside, outside = 2**44 <= radius <= TOP - 2**50, radius < 2**44 - 1 or radius > TOP - 2**50 + 2**11
        assert math.isnan(first) == math.isnan(second)
        assert not (inside and math.isnan(first))
        assert not (outside and not math.isnan(first))
        if inside:
            held += 1
            assert furthest(radius, angle, first, second, native.module().QUICK_ERROR) <= 1
    assert held > 2000


@pytest.mark.parametrize("edges", [EDGES, EXTREMES])
def test_the_exact_path_is_within_its_error(edges: list[int]) -> None:
    """2^-95 in absolute terms is what the total variation of 2^-64 rests on."""
    for radius, angle, radius_low, angle_low in uniforms(500, edges):
        first_hi, first_lo, second_hi, second_lo = native.module().exact_normals(radius, angle, radius_low, angle_low)
        z = exact(radius << 64 | radius_low, angle << 64 | angle_low)
        with mpmath.workdps(60):
            assert abs(z[0] - first_hi - first_lo) <= mpmath.mpf(2) ** -95
            assert abs(z[1] - second_hi - second_lo) <= mpmath.mpf(2) ** -95

"""The errors that the noise's bound assumes, measured against 60-digit arithmetic where they are largest."""

import random

import mpmath
import pytest

from privkt.kernels import native

TOP = 2**64
EDGES = [2**48, 2**48 + 1, TOP - 2**48 - 1, 0xB504F33400000000, 0xB504F33400000000 - 1, 2**63, 2**63 - 1, 2**62]
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


def test_the_fast_path_is_within_its_error_for_every_lower_half_of_the_uniforms() -> None:
    limit = native.module().FAST_ERROR
    held = 0
    for radius, angle, *_ in uniforms(1500, EDGES):
        first, second, in_range = native.module().fast_normals(radius, angle)
        assert in_range == (2**48 <= radius < TOP - 2**48)
        if not in_range:
            continue
        held += 1
        for low in (0, TOP - 1):
            z = exact(radius << 64 | low, angle << 64 | low)
            with mpmath.workdps(60):
                assert abs(z[0] - first) <= limit
                assert abs(z[1] - second) <= limit
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

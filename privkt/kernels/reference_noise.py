"""The noise's truth: ChaCha20 in numpy, and Box-Muller in decimal arithmetic wherever float64 cannot decide.

Every value is the float32 nearest to base + sigma z for a real z made of 128-bit uniforms, so an implementation that
shares no arithmetic with this one still gives the same bits.
"""

from __future__ import annotations

import struct
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

NORMALS_PER_BLOCK = 8
EXTENSION_BLOCK = 1 << 63  # the blocks that continue uniforms from 64 to 128 bits
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640629")
_DIGITS = 60
_ROTATIONS = (16, 12, 8, 7)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def chacha20(key: bytes, inputs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """RFC 8439's block function. Shapes: inputs [4, n] are words 12..15 of n states; the result is [16, n]."""
    words = np.frombuffer(b"expand 32-byte k" + key, "<u4").astype(np.uint32)
    start = np.concatenate([np.repeat(words[:, None], inputs.shape[1], 1), inputs])
    x = start.copy()
    for _ in range(10):
        for a, b, c, d in _COLUMNS + _DIAGONALS:
            for to, source, mixed, rotation in zip((a, c, a, c), (b, d, b, d), (d, b, d, b), _ROTATIONS, strict=True):
                x[to] += x[source]
                x[mixed] ^= x[to]
                x[mixed] = (x[mixed] << rotation) | (x[mixed] >> (32 - rotation))
    return x + start


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    inputs = np.array([counter, *struct.unpack("<3I", nonce)], np.uint32)
    return chacha20(key, inputs[:, None]).astype("<u4").tobytes()


def _uniforms(key: bytes, step: int, blocks: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[8, n]: the 64-bit integers of each block, radius and angle of its four pairs in turn."""
    low = np.uint64(0xFFFFFFFF)
    steps = np.full_like(blocks, step)
    counter = [part for x in (blocks, steps) for part in (x & low, x >> np.uint64(32))]
    words = chacha20(key, np.stack(counter).astype(np.uint32)).astype(np.uint64)
    return words[0::2] | words[1::2] << np.uint64(32)


def normals_added(base: NDArray[np.float64], sigma: float, key: bytes, step: int, offset: int) -> NDArray[np.float32]:
    """float32(base[i] + sigma z(step, offset + i)), correctly rounded. Shapes: base [n]; the result [n]."""
    count = len(base)
    if sigma == 0 or count == 0:
        return base.astype(np.float32)
    first, last = offset // NORMALS_PER_BLOCK, (offset + count - 1) // NORMALS_PER_BLOCK
    blocks = np.uint64(first) + np.arange(last - first + 1, dtype=np.uint64)
    words = _uniforms(key, step, blocks)
    skip = offset % NORMALS_PER_BLOCK
    z, certain = _float_normals(words[0::2].T.ravel(), words[1::2].T.ravel())
    z, certain = z[skip : skip + count], certain[skip : skip + count]
    with np.errstate(over="ignore", invalid="ignore"):
        total = base + sigma * z
        error = np.where(certain, sigma * 2.0**-45 + np.abs(total) * 2.0**-51, np.inf)
        low, high = (total - error).astype(np.float32), (total + error).astype(np.float32)
    out = np.where(low == high, high, base.astype(np.float32))
    for i in np.flatnonzero((low != high) & np.isfinite(base)):
        out[i] = exact_value(key, step, offset + int(i), float(base[i]), sigma)
    return out


def _float_normals(k: NDArray[np.uint64], j: NDArray[np.uint64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pairs of normals in float64, interleaved, and where their error is below 2^-45: u in [2^-16, 1 - 2^-16]."""
    near_one = k >> np.uint64(63) == 1
    rest = (np.where(near_one, ~k, k).astype(np.float64) + 0.5) * 2.0**-64  # min(u, 1 - u), all its bits kept
    r = np.sqrt(-2 * np.where(near_one, np.log1p(-rest), np.log(rest)))
    angle = j.astype(np.int64).astype(np.float64) * (2 * np.pi * 2.0**-64)  # [-pi, pi): the same angle mod 2 pi
    z = np.stack([r * np.cos(angle), r * np.sin(angle)], 1).ravel()
    return z, np.repeat(rest >= 2.0**-16, 2)


def exact_value(key: bytes, step: int, index: int, base: float, sigma: float) -> np.float32:
    """The float32 nearest to base + sigma z of one coordinate, with 60 decimal digits."""
    block, pair = index // NORMALS_PER_BLOCK, index // 2 % 4
    high, low = (
        _uniforms(key, step, np.array([b], np.uint64))[2 * pair : 2 * pair + 2, 0]
        for b in (block, block | EXTENSION_BLOCK)
    )
    with localcontext(prec=_DIGITS):
        half = Decimal(1) / 2
        u, v = ((Decimal(int(h) << 64 | int(e)) + half) / 2**128 for h, e in zip(high, low, strict=True))
        turn = v - (1 if v > half else 0)
        x = 2 * _PI * turn if index % 2 == 0 else 2 * _PI * turn - _PI / 2  # sin a = cos(a - pi/2)
        z = (-2 * u.ln()).sqrt() * _cosine(x)
        return _nearest_float32(Decimal(base) + Decimal(sigma) * z)


def _cosine(x: Decimal) -> Decimal:
    total = term = Decimal(1)
    n = 0
    while abs(term) > Decimal(10) ** -_DIGITS or n < abs(x):
        n += 2
        term = -term * x * x / (n * (n - 1))
        total += term
    return total


def _nearest_float32(x: Decimal) -> np.float32:
    with np.errstate(over="ignore"):
        guess = np.float32(float(x))
        around = [guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))]
    if not np.isfinite(around).all():
        return guess
    return min(around, key=lambda f: abs(Decimal(float(f)) - x))

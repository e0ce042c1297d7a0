"""Gaussian noise from ChaCha20, correctly rounded, addressed by step and coordinate."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from privkt.kernels import _schema, native, reference_noise

KEY_BYTES = 32
_GAUSSIAN_TV = 2.0**-64


def new_key() -> bytes:
    """A fresh 256-bit noise key from the operating system. One a run; it stays in `private/`."""
    return os.urandom(KEY_BYTES)


def gaussian_noise(out: Tensor, sigma: float, key: bytes, step: int, offset: int = 0) -> Tensor:
    """Fill `out` with float32(sigma z), z standard normals of the stream (key, step) from coordinate `offset` on.

    Shapes: out [n] float32, contiguous. Units: sigma is the standard deviation in the sum's own units.
    Guarantee:
      - the values at coordinates i depend on (key, step, i) alone: any slice at its offset equals the whole;
      - each is the float32 nearest to an exact normal times sigma, but with probability `gaussian_tv_per_coordinate()`;
      - every instruction set, CUDA and the reference give the same bits;
      - two steps, or two coordinates, share no key stream; the same (key, step, i) twice is the same noise.
    Edge cases: sigma 0 gives zeros; n 0 does nothing.
    Raises: ValueError for sigma negative, not finite, or outside [2^-100, 2^100]; step or offset + n outside 64 bits.
    References: RFC 8439 (ChaCha20); Box, Muller 1958; Mironov, On significance of the least significant bits for
    differential privacy, CCS 2012; the bound is derived in csrc/include/privkt/gaussian.h.
    """
    _schema.ops.gaussian_noise_(out, float(sigma), key_tensor(key), *counter_of("gaussian_noise", step, offset, out))
    return out


def add_gaussian_noise_(x: Tensor, sigma: float, key: bytes, step: int, offset: int = 0) -> Tensor:
    """x becomes float32(x + sigma z), rounded once: the Gaussian mechanism on the float32 sum x, then post-processing.

    Shapes, guarantees, errors: those of `gaussian_noise`; the bound holds for |x| <= 2^30 sigma. Coordinates that are
    not finite stay as they are.
    """
    _schema.ops.add_gaussian_noise_(
        x, float(sigma), key_tensor(key), *counter_of("add_gaussian_noise_", step, offset, x)
    )
    return x


def noisy_sum(
    total: Tensor, sigma: float, key: bytes, step: int, offset: int = 0, *, scale: float | None = None
) -> Tensor:
    """float32(total + sigma z) as a new tensor; `total` [n] is float32 or float64, such as `clipped_sum`'s buffer.

    An int64 total with its `scale` stands for total / scale, which is exact in float64; sigma is in its units.
    Guarantees, errors: those of `add_gaussian_noise_`; OverflowError for a total beyond 2^53 cells (on CUDA: NaN).
    """
    counter = counter_of("noisy_sum", step, offset, total)
    return _schema.ops.noisy_sum(total, float(sigma), key_tensor(key), *counter, scale)


def gaussian_tv_per_coordinate() -> float:
    """How far one noisy coordinate can be, in total variation, from the rounding of an exact Gaussian: 2^-64.

    Private training adds this times coordinates times steps to delta. It holds for ChaCha20 as a random function.
    It is the probability that a real value lies so close to a rounding boundary of float32 that 128-bit uniforms in
    106-bit arithmetic cannot tell its side; everywhere else the output equals the exact mechanism's, rounded. All but
    2^-26 of it is a set of exact sums that does not depend on the data.
    """
    return _GAUSSIAN_TV


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439's block function: 64 bytes of key stream. Noise uses (counter, nonce) as (block, step), 64 bits each.

    Raises: ValueError for a key other than 32 bytes, a nonce other than 12, a counter outside 32 bits.
    """
    for name, value, size in (("key", key, KEY_BYTES), ("nonce", nonce, 12)):
        if len(value) != size:
            raise ValueError(f"chacha20_block: {name} must have {size} bytes, got {len(value)}; see RFC 8439, 2.3")
    if not 0 <= counter < 2**32:
        raise ValueError(f"chacha20_block: counter must be in [0, 2^32), got {counter}; see RFC 8439, 2.3")
    if not native.is_private():
        return reference_noise.chacha20_block(key, counter, nonce)
    return native.module().chacha20_block(key, counter, nonce)


def key_tensor(key: bytes) -> Tensor:
    if not isinstance(key, bytes | bytearray):
        raise TypeError(f"noise key: must be {KEY_BYTES} bytes, got {type(key).__name__}; make one with new_key()")
    if len(key) != KEY_BYTES:
        raise ValueError(f"noise key: must have {KEY_BYTES} bytes, got {len(key)}; make one with new_key()")
    return torch.frombuffer(bytearray(key), dtype=torch.uint8)


def counter_of(op: str, step: int, offset: int, x: Tensor) -> tuple[int, int]:
    for name, value in (("step", step), ("offset", offset)):
        if not 0 <= value < 2**64:
            raise ValueError(f"{op}: {name} must be in [0, 2^64), got {value}; use a new key before it runs out")
    if offset + x.numel() > 2**64:
        raise ValueError(f"{op}: offset + n must be at most 2^64, got {offset} + {x.numel()}; use the next step")
    return tuple(v - 2**64 if v >= 2**63 else v for v in (step, offset))  # type: ignore[return-value]

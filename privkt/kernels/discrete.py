"""Exact discrete Gaussian noise on the integers, for sums on the integer grid."""

from __future__ import annotations

import math

from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.grid import LEAST_CELLS, grid_scale
from privkt.kernels.noise import key_tensor

LEAST_SIGMA, MOST_SIGMA = 2.0**-6, 2.0**40
SIGNIFICANT_BITS = 32
COORDINATES = 2**46
_ROUNDING = 2.0  # deviation, in cells, of the rounding that the proof takes from the noise
_TV = 2.0**-112


def discrete_gaussian_(out: Tensor, sigma: float, key: bytes, step: int, offset: int = 0) -> Tensor:
    """Fill `out` with independent integers x, P(x) proportional to exp(-x^2 / (2 sigma^2)).

    Shapes: out [n] int64, contiguous. Units: sigma in cells of the grid (deviation times its scale); for sigma >= 1 the
    deviation of x is sigma to 10^-7, below it is smaller.
    Guarantee:
      - the probabilities are exact, for ChaCha20 as a random function: no decision is made in floating point;
      - the value at coordinate i depends on (key, step, i) alone: any slice at its offset equals the whole;
      - every instruction set and the reference give the same integers; no word of key stream is shared with
        `gaussian_noise` under the same key and step, nor between coordinates or steps.
    Edge cases: sigma 0 gives zeros; n 0 does nothing. The time depends on the noise drawn, never on any sum.
    Raises: ValueError for a sigma outside [2^-6, 2^40] or of more than 32 significant bits (`representable_sigma`
        rounds one up), a step outside 64 bits, offset + n above 2^46.
    References: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", Algorithms 1 to 3;
        docs/proofs/discrete_gaussian.md.
    """
    arguments = _arguments("discrete_gaussian_", out, sigma, key, step, offset)
    _schema.ops.discrete_gaussian_(out, *arguments)
    return out


def add_discrete_gaussian_(total: Tensor, sigma: float, key: bytes, step: int, offset: int = 0) -> Tensor:
    """total += discrete Gaussian noise: the mechanism on an int64 sum on the grid; divide by its scale afterwards.

    Shapes, guarantees, errors: those of `discrete_gaussian_`. What it costs: `accounted_sigma`.
    """
    arguments = _arguments("add_discrete_gaussian_", total, sigma, key, step, offset)
    _schema.ops.add_discrete_gaussian_(total, *arguments)
    return total


def representable_sigma(sigma: float) -> float:
    """The smallest sigma of 32 significant bits that is not below `sigma`: at most 2^-31 of it more."""
    mantissa, exponent = math.frexp(sigma)
    return math.ldexp(math.ceil(math.ldexp(mantissa, SIGNIFICANT_BITS)), exponent - SIGNIFICANT_BITS)


def accounted_sigma(sigma_cells: float) -> tuple[float, float]:
    """(deviation, tv): what discrete noise of `sigma_cells` on an integer sum costs at most, in an accountant's terms.

    Units: cells; the multiplier is deviation / (clipping norm * scale).
    Guarantee: k + discrete noise, for any integer vector k, is within tv a coordinate, in total variation, of a random
        function of k + continuous Gaussian noise of that deviation. So an accountant of the Gaussian mechanism,
        Poisson-sampled or not, holds with that deviation and delta + (1 + e^epsilon) * tv * coordinates * steps.
        For zCDP no detour is needed: rho = (norm / sigma_cells)^2 / 2 with tv 0.
    Raises: ValueError for a sigma_cells of 2 or less, where the detour takes all noise, or one that is not finite.
    References: docs/proofs/discrete_gaussian.md; C. Peikert, CRYPTO 2010, Theorem 3.1 (convolution).
    """
    if not (math.isfinite(sigma_cells) and sigma_cells > _ROUNDING):
        raise ValueError(
            f"accounted_sigma: sigma_cells must be above 2 and finite, got {sigma_cells}; use a finer grid"
        )
    square = math.nextafter(sigma_cells * sigma_cells, 0) - _ROUNDING**2
    return math.nextafter(math.sqrt(math.nextafter(square, 0)), 0), _TV


def covering_sigma(deviation: float) -> float:
    """The smallest sigma that may be drawn and costs no more than continuous noise of `deviation`, both in cells.

    Guarantee: accounted_sigma(result)[0] >= deviation, which is a comparison of floating-point numbers, no estimate.
    """
    sigma = representable_sigma(math.nextafter(math.hypot(max(deviation, 0.0), _ROUNDING), math.inf))
    while accounted_sigma(sigma)[0] < deviation:
        sigma = representable_sigma(math.nextafter(sigma, math.inf))
    return sigma


def discrete_grid(max_norm: float, rows: int, deviation: float) -> tuple[float, float]:
    """(scale, sigma): the finest grid for sums of `rows` rows with discrete noise, and the noise in its cells.

    Units: max_norm and deviation those of the sum; sigma in cells, for `add_discrete_gaussian_`.
    Guarantee: that of `grid_scale`; max_norm * scale >= 2^20; sigma costs no more than `deviation` does.
    Raises: ValueError as `grid_scale`, and for noise of more than 2^40 cells on a grid of 2^20 cells in max_norm.
    """
    if not (math.isfinite(deviation) and deviation >= 0):
        raise ValueError(
            f"discrete_grid: deviation must be finite and not negative, got {deviation}; pass that of noise"
        )
    scale = grid_scale(max_norm, 2 * max(rows, 1))  # half of the range is the noise's
    while covering_sigma(deviation * scale) > MOST_SIGMA and max_norm * scale >= LEAST_CELLS:
        scale /= 2
    if max_norm * scale < LEAST_CELLS:
        raise ValueError(
            f"discrete_grid: noise must leave max_norm 2^20 cells, got a deviation of {deviation / max_norm:.3g} times "
            "max_norm; ask for a larger epsilon"
        )
    return scale, covering_sigma(deviation * scale)


def discrete_tv_per_coordinate() -> float:
    """How far one discrete coordinate can be from a function of continuous noise, in total variation: 2^-112.

    It counts (1 + e^epsilon) times in delta (`accounted_sigma`).
    """
    return _TV


def _arguments(
    op: str, out: Tensor, sigma: float, key: bytes, step: int, offset: int
) -> tuple[float, Tensor, int, int]:
    if not 0 <= step < 2**64:
        raise ValueError(f"{op}: step must be in [0, 2^64), got {step}; use a new key before it runs out")
    if offset < 0 or offset + out.numel() > COORDINATES:
        raise ValueError(f"{op}: offset + n must be in [0, 2^46], got {offset} + {out.numel()}; use the next step")
    return float(sigma), key_tensor(key), step - 2**64 if step >= 2**63 else step, offset

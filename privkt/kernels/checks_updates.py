"""What discrete noise and the noisy update steps demand of their arguments; see `checks`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privkt.kernels.checks import ROW_DTYPES, SUM_DTYPES, _grid, _key, _noise, _same_device, _vector

DISCRETE_SIGMA_RANGE = (2.0**-6, 2.0**40)


def _discrete(op: str, name: str, x: Tensor, sigma: float, key: Tensor) -> None:
    if not (sigma == 0 or DISCRETE_SIGMA_RANGE[0] <= sigma <= DISCRETE_SIGMA_RANGE[1]):
        raise ValueError(f"{op}: sigma must be 0 or between 2^-6 and 2^40 cells, got {sigma}; choose another grid")
    if not (math.frexp(sigma)[0] * 2**32).is_integer():
        raise ValueError(
            f"{op}: sigma must have at most 32 significant bits, got {sigma!r}; use representable_sigma(sigma)"
        )
    _key(op, key)
    _vector(op, name, x, None, (torch.int64,))


def discrete_gaussian_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _discrete("discrete_gaussian_", "out", out, sigma, key)


def add_discrete_gaussian_(total: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    _discrete("add_discrete_gaussian_", "total", total, sigma, key)


def _update(
    op: str,
    param: Tensor,
    states: dict[str, Tensor | None],
    total: Tensor,
    sigma: float,
    key: Tensor,
    scale: float | None,
    divisor: float,
) -> None:
    _noise(op, sigma, key)
    _vector(op, "param", param, None, ROW_DTYPES)
    _vector(op, "total", total, param.shape[0], SUM_DTYPES)
    _same_device(op, "total", total, param, "param")
    for name, state in states.items():
        if state is not None:
            _vector(op, name, state, param.shape[0], (torch.float32,))
            _same_device(op, name, state, param, "param")
    _grid(op, "total", total, scale)
    if not (math.isfinite(divisor) and divisor > 0):
        raise ValueError(f"{op}: divisor must be positive and finite, got {divisor}; pass the public batch size q N")


def sgd_update_(
    param: Tensor,
    momentum_buffer: Tensor | None,
    total: Tensor,
    sigma: float,
    key: Tensor,
    step: int,
    offset: int,
    scale: float | None,
    divisor: float,
    *how: float,
) -> None:
    states = {"momentum_buffer": momentum_buffer}
    _update("sgd_update_", param, states, total, sigma, key, scale, divisor)


def adam_update_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    total: Tensor,
    sigma: float,
    key: Tensor,
    step: int,
    offset: int,
    scale: float | None,
    divisor: float,
    *how: float,
) -> None:
    states: dict[str, Tensor | None] = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    _update("adam_update_", param, states, total, sigma, key, scale, divisor)

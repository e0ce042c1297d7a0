"""Discrete noise and the noisy update steps over the native module; see `native`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from privkt.kernels import reference_updates as updates
from privkt.kernels.native import _ELEMENTS, _NOISE_A_THREAD, _at, _split

_DISCRETE_A_THREAD = 1 << 11


def _discrete(total: Tensor, sigma: float, key: Tensor, step: int, offset: int, accumulate: bool) -> None:
    words = bytes(key.tolist())

    def run(start: int, stop: int) -> tuple[Any, ...]:
        return _at(total, start), stop - start, sigma, words, step % 2**64, offset + start, accumulate

    _split("discrete_gaussian", total.device, total.shape[0], _DISCRETE_A_THREAD, run)


def add_discrete_gaussian_(total: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    if sigma > 0:
        _discrete(total, sigma, key, step, offset, accumulate=True)


def discrete_gaussian_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    if sigma > 0:
        _discrete(out, sigma, key, step, offset, accumulate=False)
    else:
        out.zero_()


def _update(kernel: str, weights: tuple[Tensor | None, ...], mean: tuple[Any, ...], how: tuple[Any, ...]) -> None:
    """One kernel for the parameter, its states and the noisy mean of their coordinates."""
    param, *states = weights
    total, sigma, key, step, offset, scale, divisor, maximize = mean
    assert param is not None
    words, cell = bytes(key.tolist()), 1.0 if scale is None else 1 / scale

    def run(start: int, stop: int) -> tuple[Any, ...]:
        counter = (step % 2**64, (offset + start) % 2**64)
        noisy = (_at(total, start), _ELEMENTS[total.dtype], cell, sigma, words, *counter, divisor, maximize)
        first = (_at(param, start), _ELEMENTS[param.dtype], stop - start)
        return *first, *(_at(state, start) for state in states), noisy, *how

    updates.need_fit(kernel + "_", _split(kernel, param.device, param.shape[0], _NOISE_A_THREAD, run))


def sgd_update_(param: Tensor, momentum_buffer: Tensor | None, *rest: Any) -> None:
    _update("sgd_update", (param, momentum_buffer), rest[:8], rest[8:])


def adam_update_(param: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
    _update("adam_update", (param, exp_avg, exp_avg_sq), rest[:8], rest[8:])

"""Discrete noise and the noisy update steps over the native module; see `native`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privkt.kernels import reference_updates as updates
from privkt.kernels.native import _ELEMENTS, _NOISE_A_THREAD, _at, _call, _split, noisy_sum
from privkt.kernels.threads import parallel

_DISCRETE_A_THREAD = 1 << 11


def _discrete(total: Tensor, sigma: float, key: Tensor, step: int, offset: int, accumulate: bool) -> None:
    words = bytes(key.tolist())

    def run(start: int, stop: int) -> tuple[Any, ...]:
        return _at(total, start), stop - start, sigma, words, step % 2**64, offset + start, accumulate

    _split("discrete_gaussian", total.device, total.shape[0], _DISCRETE_A_THREAD, run)


def add_discrete_gaussian_(total: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    if sigma == 0:
        return
    if total.device.type == "cpu":
        _discrete(total, sigma, key, step, offset, accumulate=True)
    else:  # drawn on the host: rejection does not suit a device, and the integers are the same
        total += discrete_gaussian_on_host(total, sigma, key, step, offset)


def discrete_gaussian_(out: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> None:
    if sigma > 0 and out.device.type == "cpu":
        _discrete(out, sigma, key, step, offset, accumulate=False)
    else:
        add_discrete_gaussian_(out.zero_(), sigma, key, step, offset)


def discrete_gaussian_on_host(like: Tensor, sigma: float, key: Tensor, step: int, offset: int) -> Tensor:
    drawn = torch.empty(like.shape, dtype=torch.int64)
    _discrete(drawn, sigma, key, step, offset, accumulate=False)
    return drawn.to(like.device)


def _update(kernel: str, weights: tuple[Tensor | None, ...], mean: tuple[Any, ...], how: tuple[Any, ...]) -> None:
    """One kernel for the parameter, its states and the noisy mean of their coordinates."""
    param, *states = weights
    total, sigma, key, step, offset, scale, divisor, maximize = mean
    assert param is not None
    words, cell = bytes(key.tolist()), 1.0 if scale is None else 1 / scale
    fits = []

    def run(start: int, stop: int) -> None:
        assert param is not None
        counter = (step % 2**64, (offset + start) % 2**64)
        noisy = (_at(total, start), _ELEMENTS[total.dtype], cell, sigma, words, *counter, divisor, maximize)
        first = (_at(param, start), _ELEMENTS[param.dtype], stop - start)
        fits.append(_call(kernel, param.device, *first, *(_at(state, start) for state in states), noisy, *how))

    parallel(param.shape[0], run, _NOISE_A_THREAD)
    updates.need_fit(kernel + "_", all(fits))


def sgd_update_(param: Tensor, momentum_buffer: Tensor | None, *rest: Any) -> None:
    mean, how = rest[:8], rest[8:]
    if param.device.type == "cpu":
        _update("sgd_update", (param, momentum_buffer), mean, how)
    else:
        updates.sgd_step(param, momentum_buffer, updates.gradient(noisy_sum(*mean[:6]), *mean[6:]), *how)


def adam_update_(param: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *rest: Any) -> None:
    mean, how = rest[:8], rest[8:]
    if param.device.type == "cpu":
        _update("adam_update", (param, exp_avg, exp_avg_sq), mean, how)
    else:
        updates.adam_step(param, exp_avg, exp_avg_sq, updates.gradient(noisy_sum(*mean[:6]), *mean[6:]), *how)

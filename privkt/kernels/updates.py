"""The step that ends a private batch: noise, mean, optimizer state and weight in one pass over memory.

In place of `noisy_sum`, a division, and torch.optim, which between them read and write a vector of all parameters some
ten times. What the steps compute is post-processing of the noisy sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privkt.kernels import _schema
from privkt.kernels.noise import counter_of, key_tensor


def _op(name: str) -> Any:
    return getattr(_schema.ops, name) if torch.compiler.is_compiling() else _schema.direct[name]


def sgd_update_(
    param: Tensor,
    momentum_buffer: Tensor | None,
    total: Tensor,
    sigma: float,
    key: bytes,
    step: int,
    offset: int = 0,
    *,
    divisor: float,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
    scale: float | None = None,
) -> None:
    """One step of torch.optim.SGD on the gradient noisy_sum(total, sigma, key, step, offset) / divisor.

    Shapes: param [n] float32 | bfloat16; momentum_buffer [n] float32, None without momentum; total [n] float64 |
    float32, or int64 with its `scale`; each contiguous, a view of a parameter or of a slice of it. `offset` is the
    noise coordinate of the first element; `first` says that the buffer holds nothing yet.
    Guarantee:
      - the gradient has the bits of noisy_sum, divided in float32; the noise of each coordinate is added once;
      - instruction sets, numbers of threads and the reference give the same bits, within a few units in the last place
        of torch's; a slice at its offset equals that slice of the whole;
      - bfloat16 weights are rounded once, to nearest, from float32 arithmetic.
    Edge cases: sigma 0 adds no noise; n 0 does nothing.
    Raises: TypeError, ValueError for other shapes, dtypes or devices; OverflowError for an int64 total beyond 2^53,
    whose weight is NaN then (on CUDA nothing else tells).
    """
    if momentum != 0 and momentum_buffer is None:
        raise ValueError(
            "sgd_update_: momentum_buffer must come with a momentum other than 0, got none; pass zeros and first=True"
        )
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError(
            f"sgd_update_: nesterov needs momentum > 0 and dampening 0, got {momentum} and {dampening}; switch it off"
        )
    _op("sgd_update_")(
        param,
        momentum_buffer if momentum != 0 else None,
        total,
        float(sigma),
        key_tensor(key),
        *counter_of("sgd_update_", step, offset, total),
        scale,
        float(divisor),
        maximize,
        float(lr),
        float(momentum),
        1 - float(dampening),
        float(weight_decay),
        nesterov,
        first,
    )


def adamw_update_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    total: Tensor,
    sigma: float,
    key: bytes,
    step: int,
    offset: int = 0,
    *,
    divisor: float,
    lr: float,
    count: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    maximize: bool = False,
    noise_bias: float = 0.0,
    floor: float = 1e-10,
    scale: float | None = None,
) -> None:
    """One step of torch.optim.AdamW (Adam, if not `decoupled`) on noisy_sum(total, sigma, key, step, offset) / divisor.

    Shapes: as in `sgd_update_`; exp_avg and exp_avg_sq [n] float32, zeros before the first step. `count` is the number
    of this step, from 1 on. Units: noise_bias is the variance of the noise on a gradient's coordinate,
    (sigma / divisor)^2 for white noise; above 0 it is taken off the corrected second moment, which then is at least
    `floor`, and eps is not added: weight -= lr m / sqrt(max(v - noise_bias, floor)), m and v corrected.
    Guarantee, edge cases, errors: those of `sgd_update_`.
    References: Loshchilov, Hutter 2019; Tang, Shpilevskiy, Lécuyer 2024, "DP-AdamBC" (arXiv 2312.14334), whose gamma'
        is `floor`.
    """
    if count < 1:
        raise ValueError(f"adamw_update_: count must be the number of this step, from 1 on, got {count}; count from 1")
    if not (noise_bias >= 0 and (noise_bias == 0 or floor > 0)):
        raise ValueError(
            f"adamw_update_: noise_bias must not be negative, nor its floor 0, got {noise_bias} and {floor}; "
            "pass (sigma / divisor)^2 and a small floor"
        )
    correction = 1 - betas[1] ** count
    _op("adam_update_")(
        param,
        exp_avg,
        exp_avg_sq,
        total,
        float(sigma),
        key_tensor(key),
        *counter_of("adamw_update_", step, offset, total),
        scale,
        float(divisor),
        maximize,
        float(lr) / (1 - betas[0] ** count),
        1 - betas[0],
        betas[1],
        1 - betas[1],
        correction,
        correction**0.5,
        float(eps),
        0.0 if decoupled else float(weight_decay),
        1 - lr * weight_decay if decoupled else 1.0,
        float(noise_bias),
        float(floor),
    )

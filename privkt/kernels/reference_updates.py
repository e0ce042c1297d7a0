"""What the noisy update steps must compute, in torch: torch.optim's formulas, each operation rounded by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from privkt.kernels.reference_noise import normals_added

_MOST_CELLS = 2**53


def units(total: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """An int64 total in float64 units, and where its cells are within 2^53; NaN elsewhere. Others as they are."""
    if scale is None:
        return total.detach(), total.new_ones(1, dtype=torch.bool)
    fine = (total >= -_MOST_CELLS) & (total <= _MOST_CELLS)
    return torch.where(fine, total.double() / scale, torch.nan), fine


def need_fit(op: str, fits: bool) -> None:
    """Raises OverflowError unless every coordinate of the total is a sum that was exact."""
    if not fits:
        raise OverflowError(
            f"{op}: total must stay within 2^53 cells, got a coordinate beyond, and its weight is NaN now; start again "
            "from the last checkpoint with the scale of grid_scale(max_norm, rows) for all rows of the batch"
        )


def gradient(noisy: Tensor, divisor: float, maximize: bool) -> Tensor:
    """The noisy mean with the sign that a minimizer takes."""
    mean = noisy / torch.tensor(divisor, dtype=torch.float32, device=noisy.device)
    return -mean if maximize else mean


def _gradient(
    total: Tensor, sigma: float, key: Tensor, step: int, offset: int, scale: float | None, *rest: Any
) -> tuple[Tensor, bool]:
    base, fine = units(total, scale)
    floats = base.double().cpu().numpy()
    noisy = torch.from_numpy(normals_added(floats, sigma, bytes(key.tolist()), step % 2**64, offset % 2**64))
    return gradient(noisy.to(total.device), *rest), bool(fine.all())


def sgd_update_(param: Tensor, momentum_buffer: Tensor | None, *mean_and_how: Any) -> None:
    mean, fits = _gradient(*mean_and_how[:8])
    sgd_step(param, momentum_buffer, mean, *mean_and_how[8:])
    need_fit("sgd_update_", fits)


def adam_update_(param: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *mean_and_how: Any) -> None:
    mean, fits = _gradient(*mean_and_how[:8])
    adam_step(param, exp_avg, exp_avg_sq, mean, *mean_and_how[8:])
    need_fit("adam_update_", fits)


def sgd_step(
    param: Tensor,
    momentum_buffer: Tensor | None,
    gradient: Tensor,
    rate: float,
    momentum: float,
    dampened: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """torch.optim.SGD; `dampened` is 1 - dampening, and `first` says that the buffer holds nothing yet."""
    weight = param.float()
    if weight_decay != 0:
        gradient = gradient + weight * weight_decay
    if momentum_buffer is not None:
        momentum_buffer.copy_(gradient if first else momentum_buffer * momentum + gradient * dampened)
        gradient = gradient + momentum_buffer * momentum if nesterov else momentum_buffer
    param.copy_(weight - gradient * rate)


def adam_step(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    gradient: Tensor,
    rate: float,
    first_weight: float,
    second_decay: float,
    second_weight: float,
    correction: float,
    root_correction: float,
    eps: float,
    weight_decay: float,
    shrink: float,
    noise_variance: float,
    floor: float,
) -> None:
    """torch.optim.Adam with its numbers worked out: rate is lr / (1 - beta1^t), first_weight 1 - beta1, and so on."""
    weight = param.float()
    if weight_decay != 0:
        gradient = gradient + weight * weight_decay
    away = gradient - exp_avg
    if first_weight < 0.5:
        exp_avg.copy_(exp_avg + away * first_weight)
    else:
        exp_avg.copy_(gradient - away * (1 - torch.tensor(first_weight, dtype=torch.float32)).item())
    exp_avg_sq.copy_(exp_avg_sq * second_decay + gradient * second_weight * gradient)
    if noise_variance > 0:
        root = _rounded_root((exp_avg_sq / correction - noise_variance).clamp(min=floor))
    else:
        root = _rounded_root(exp_avg_sq) / root_correction + eps
    param.copy_(weight * shrink - exp_avg * rate / root)


def _rounded_root(x: Tensor) -> Tensor:
    """The nearest float32 to the root, which torch's float32 root on the CPU need not be."""
    return x.double().sqrt().float()

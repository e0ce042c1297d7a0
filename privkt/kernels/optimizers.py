"""torch's optimizers, driven by noisy sums: their settings and their state, without a gradient in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from privkt.kernels.updates import adamw_update_, sgd_update_

_KINDS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_REFUSED = ("amsgrad", "capturable", "differentiable")  # foreach and fused only say how torch itself would do it


def why_not(optimizer: torch.optim.Optimizer) -> str:
    """Why `noisy_step_` cannot stand in for optimizer.step(); empty where it can."""
    if type(optimizer) not in _KINDS:
        return f"the optimizer must be torch's SGD, Adam or AdamW itself, got {type(optimizer).__name__}"
    for group in optimizer.param_groups:
        for name in _REFUSED:
            if group.get(name):
                return f"the optimizer's {name} must be off, got {group[name]}"
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    if any((*hooks, torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)):
        return "the optimizer must have no step hooks, got one"
    own = vars(optimizer).get("step")  # learning-rate schedulers put a wrapper there that only counts
    if own is not None and getattr(own, "__wrapped__", None) is not type(optimizer).step:
        return "the optimizer's step must be its class's own, got another"
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        if parameter.dtype not in (torch.float32, torch.bfloat16) or not parameter.is_contiguous():
            return (
                f"parameters must be contiguous float32 or bfloat16, got {parameter.dtype}, shape "
                f"{list(parameter.shape)}, strides {list(parameter.stride())}"
            )
    return ""


def noisy_step_(
    optimizer: torch.optim.Optimizer,
    places: Sequence[tuple[nn.Parameter, int]],
    total: Tensor,
    sigma: float,
    key: bytes,
    step: int,
    *,
    offset: int = 0,
    divisor: float,
    scale: float | None = None,
    still: Mapping[nn.Parameter, Iterable[int]] | None = None,
    noise_bias: float = 0.0,
    floor: float = 1e-10,
) -> None:
    """optimizer.step() with the gradient noisy_sum(total, sigma, key, step, offset) / divisor, which is never stored.

    Shapes: total [P], coordinates from `offset` on; places: each trained parameter with the coordinate of its first
    element. Parameters that are not named stay as they are, as ones without a gradient do. `still`: rows of a parameter
    whose gradient is 0. `noise_bias`: above 0, the variance of the noise on a gradient's coordinate, (sigma /
    divisor)^2, which is taken off Adam's second moment, at least `floor` staying (see `adamw_update_`).
    Guarantee: those of `sgd_update_` and `adamw_update_`; settings are read from param_groups at each step, so
        schedulers work, and the state is torch's own: optimizer.state_dict() goes to a plain optimizer and back.
    Edge cases: the state of bfloat16 parameters is float32; torch's load_state_dict rounds it to bfloat16.
    Raises: ValueError for what `why_not` says, a coordinate twice or outside the total, SGD with noise_bias.
    """
    reason = why_not(optimizer)
    if reason:
        raise ValueError(f"noisy_step_: {reason}; call optimizer.step() on the noisy mean instead")
    if noise_bias and isinstance(optimizer, torch.optim.SGD):
        raise ValueError("noisy_step_: noise_bias must go with Adam or AdamW, got SGD; leave it out")
    _need_apart(places, offset, len(total))
    starts = dict(places)
    groups = [(g, p) for g in optimizer.param_groups for p in g["params"] if p in starts]
    if len(groups) != len(starts):
        raise ValueError(
            f"noisy_step_: the optimizer must hold every place's parameter, got {len(groups)} of {len(starts)}; "
            "make it of the parameters that are trained"
        )
    bias = {"noise_bias": noise_bias, "floor": floor} if noise_bias else {}
    with torch.no_grad():
        for group, parameter in groups:
            update, states = _prepared(optimizer, group, parameter)
            flat = [x if x is None else x.detach().view(-1) for x in (parameter, *states)]
            for start, stop, moves in _pieces(parameter, (still or {}).get(parameter, ())):
                place = starts[parameter] + start
                piece = total[place - offset : place - offset + stop - start]
                if not moves:
                    piece = torch.zeros_like(piece)
                update(
                    *(x if x is None else x[start:stop] for x in flat),
                    piece,
                    sigma if moves else 0.0,
                    key,
                    step,
                    place,
                    divisor=divisor,
                    scale=scale,
                    **bias,
                )
    optimizer._opt_called = True  # type: ignore[attr-defined]  # what learning-rate schedulers look for


def _need_apart(places: Sequence[tuple[nn.Parameter, int]], first: int, count: int) -> None:
    end = first
    for parameter, start in sorted(places, key=lambda place: place[1]):
        if start < end or start + parameter.numel() > first + count:
            raise ValueError(
                f"noisy_step_: places must lie apart within the {count} coordinates of the total, got one of "
                f"{parameter.numel()} at {start}; no coordinate's noise may serve twice"
            )
        end = start + parameter.numel()


def _pieces(parameter: Tensor, rows: Iterable[int]) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, moves) over the flat parameter: stretches between still rows, and those rows."""
    done, still = 0, sorted({row % len(parameter) for row in rows})
    width = parameter.numel() // len(parameter) if still else 0
    for row in still:
        if row * width > done:
            yield done, row * width, True
        yield row * width, (row + 1) * width, False
        done = (row + 1) * width
    if done < parameter.numel():
        yield done, parameter.numel(), True


def _float32(state: dict[str, Any], name: str, like: Tensor) -> Tensor:
    """The state tensor as float32, made of zeros if it is not there: a loaded state has its parameter's dtype."""
    if state.get(name) is None:
        state[name] = torch.zeros_like(like, dtype=torch.float32)
    elif state[name].dtype != torch.float32:
        state[name] = state[name].float()
    return state[name]


def _prepared(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter
) -> tuple[Any, list[Tensor | None]]:
    """The update of one parameter with its settings, and its states, made as torch makes them."""
    common = {name: float(group[name]) for name in ("lr", "weight_decay")}
    common["maximize"] = group["maximize"]
    if isinstance(optimizer, torch.optim.SGD):
        settings = {**common, **{name: group[name] for name in ("momentum", "dampening", "nesterov")}}
        if group["momentum"] == 0:
            return _bound(sgd_update_, settings), [None]
        state = optimizer.state[parameter]
        settings["first"] = state.get("momentum_buffer") is None
        return _bound(sgd_update_, settings), [_float32(state, "momentum_buffer", parameter)]
    state = optimizer.state[parameter]
    if "step" not in state:
        away = parameter.device if group.get("fused") else None  # where torch's own step would look for it
        state["step"] = torch.tensor(0.0, dtype=torch.float32, device=away)
    state["step"] += 1
    betas = tuple(float(beta) for beta in group["betas"])
    settings = {**common, "betas": betas, "eps": group["eps"], "count": int(state["step"])}
    settings["decoupled"] = isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
    return _bound(adamw_update_, settings), [_float32(state, name, parameter) for name in ("exp_avg", "exp_avg_sq")]


def _bound(update: Any, settings: dict[str, Any]) -> Any:
    return lambda *tensors, **rest: update(*tensors, **settings, **rest)

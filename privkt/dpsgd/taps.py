"""What stands in a model's way while a microbatch is open: taps on gradients, and forwards that are put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MARK = "_privkt_stands_in"
_PLACES = ("forward", "get_prompt")


class Tap(torch.autograd.Function):
    """The identity on the first `count` tensors; its backward hands their gradients on, and to `add` with the others.

    Saved tensors go through autograd, so checkpointing recomputes them like any other activation. `anchor` requires a
    gradient, so that the first trainable layer of a frozen model is reached.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, add: Callable[..., None], count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.add = add
        ctx.save_for_backward(*tensors[count:])
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        kept = ctx.saved_tensors  # read once: checkpointing recomputes on the first reading and frees afterwards
        ctx.add(kept, *grads)
        return (None, None, None, *grads, *(None for _ in kept))


def stand_in(function: Callable[..., Any], **attributes: Any) -> Callable[..., Any]:
    """`function`, marked as put in place by an engine, with further attributes.

    It stays as it is where the model around it is compiled: what it writes down must happen every time.
    """
    uncompiled: Callable[..., Any] = torch.compiler.disable(function, reason="it gathers per-sample gradients")
    for name, value in {_MARK: True, **attributes}.items():
        setattr(uncompiled, name, value)
    return uncompiled


def stands_in(module: nn.Module, place: str = "forward") -> Any:
    """What an engine put in `place` of a module while a microbatch is open, or None."""
    found = module.__dict__.get(place)
    return found if getattr(found, _MARK, False) else None


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """The model runs inside as if no microbatch were open."""
    found = [
        (module, place, module.__dict__.pop(place))
        for module in model.modules()
        for place in _PLACES
        if stands_in(module, place) is not None
    ]
    try:
        yield
    finally:
        for module, place, function in found:
            module.__dict__[place] = function

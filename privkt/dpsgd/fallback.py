"""Exact per-sample gradients of a layer without a rule: its own forward runs again, one sample at a time.

Whatever the layer computes, sample b's gradient is that of its forward on sample b alone. It is slow, one forward and
backward a sample; a rule (privkt.dpsgd.rules) is the fast way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from privkt.dpsgd.rules import LayerMisuse, Rule

_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.Size, type(None))
_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.1


class FallbackRule(Rule):
    """What stands in for a rule where there is none; the engine runs such layers through `Call`."""

    def handles(self, module: nn.Module) -> bool:
        return type(module).forward is not nn.Module.forward  # a ParameterList has nothing that could run again

    def parameters(self, module: nn.Module) -> tuple[str, ...]:
        return tuple(module._parameters)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        raise AssertionError("the engine runs a layer without a rule through Call")

    add_rows = forward  # type: ignore[assignment]


class Call:
    """One run of a layer, and what is needed to run it again for one sample.

    Guarantee: `rows` gives sample b's gradient from slice b of the inputs alone. A layer that drew random numbers is
        run on b copies of the sample from the same random state, so that slice b draws what it drew before.
    Raises: LayerMisuse, for inputs or outputs that cannot be taken apart by sample.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], samples: int, shared: set[int]) -> None:
        """shared: places of inputs that all samples have in common; calls of one layer learn it from one another,
        because a batch may be as long as such an input by chance."""
        self._module, self._names, self._samples, self._shared = module, tuple(names), samples, shared
        self._device = self._own()[self._names[0]].device
        self._random: list[Tensor] | None = None

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Runs the layer on detached parameters: the tensors that went in, and the floating ones that came out."""
        inputs: list[Tensor] = []
        self._inputs_form = _taken_apart((args, kwargs), inputs)
        self._shared.update(place for place, x in enumerate(inputs) if not self._has_samples(x))
        if len(self._shared) >= len(inputs):
            raise LayerMisuse(f"without a rule, an input must have the {self._samples} samples of the microbatch first")
        kind = self._device.type
        self._autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        before = self._random_state()
        with _swapped(self._module, {name: weight.detach() for name, weight in self._own().items()}):
            output = type(self._module).forward(self._module, *args, **kwargs)
        drew = any(not torch.equal(old, new) for old, new in zip(before, self._random_state(), strict=True))
        self._random = before if drew else None
        outputs: list[Tensor] = []
        self._outputs_form = _taken_apart(output, outputs, floating=True)
        for x in outputs:
            if not self._has_samples(x):
                came = x.shape[0] if x.dim() else "a scalar"
                raise LayerMisuse(f"without a rule, an output must have the {self._samples} samples first, got {came}")
        return inputs, outputs

    def output(self, tensors: Sequence[Tensor]) -> Any:
        """The layer's output with other tensors in it."""
        return _put_together(self._outputs_form, iter(tensors))

    def rows(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        grads: Sequence[Tensor],
        take: Callable[[int, str, Tensor], None],
    ) -> Tensor:
        """Gives `take` each sample's gradient of each parameter: (sample, name, gradient).

        Returns: [] bool, whether the layer gave every sample the same output again.
        """
        devices = [] if self._device.type == "cpu" else [self._device]
        same = []
        with (
            torch.enable_grad(),
            torch.autocast(self._device.type, dtype=self._autocast[1], enabled=self._autocast[0]),
            _plain_forwards(self._module),
            torch.random.fork_rng(devices=devices, enabled=self._random is not None),
        ):
            for sample in range(self._samples):
                found, agrees = self._row(sample, inputs, outputs, grads)
                same.append(agrees)
                for name, grad in found.items():
                    take(sample, name, grad)
        return torch.stack(same).all()

    def _row(
        self, sample: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        if self._random is not None:
            self._set_random_state(self._random)
        own = slice(sample, sample + 1)
        copies = 1 if self._random is None else self._samples
        again = (
            x if place in self._shared else x[own].repeat(copies, *(1,) * (x.dim() - 1))
            for place, x in enumerate(inputs)
        )
        args, kwargs = _put_together(self._inputs_form, again)
        leaves = {name: weight.detach().requires_grad_() for name, weight in self._own().items()}
        results: list[Tensor] = []
        with _swapped(self._module, leaves):
            _taken_apart(type(self._module).forward(self._module, *args, **kwargs), results, floating=True)
        mine = [x[own] if copies > 1 else x for x in results]
        same = torch.stack([_close(x, y[own]) for x, y in zip(mine, outputs, strict=True)]).all()
        pairs = [(x, g[own]) for x, g in zip(mine, grads, strict=True) if x.requires_grad]
        found = torch.autograd.grad(
            [x for x, _ in pairs], list(leaves.values()), [g for _, g in pairs], allow_unused=True
        )
        return {name: g for name, g in zip(self._names, found, strict=True) if g is not None}, same

    def _own(self) -> dict[str, Tensor]:
        found = {name: self._module._parameters[name] for name in self._names}
        return {name: weight for name, weight in found.items() if weight is not None}

    def _has_samples(self, x: Tensor) -> bool:
        return x.dim() > 0 and x.shape[0] == self._samples

    def _random_state(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _set_random_state(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)


def _close(x: Tensor, y: Tensor) -> Tensor:
    """Whether two outputs agree up to rounding; a sample that is not finite is left out anyway."""
    tolerance = _HALF_TOLERANCE if x.dtype in (torch.bfloat16, torch.float16) else _TOLERANCE
    if x.shape != y.shape:
        return torch.zeros((), dtype=torch.bool, device=x.device)
    x, y = x.detach().double(), y.detach().double()
    near = (x - y).abs().max() <= tolerance * y.abs().max() if y.numel() else torch.ones((), dtype=torch.bool)
    return near | ~y.isfinite().all()


def _taken_apart(x: Any, found: list[Tensor], floating: bool = False) -> Any:
    """The structure of `x` with a mark for each (`floating`) tensor, which goes to `found`."""
    if isinstance(x, Tensor):
        if floating and not x.is_floating_point():
            return x
        found.append(x)
        return Tensor
    if isinstance(x, _PLAIN):
        return x
    if type(x) is dict:
        return {key: _taken_apart(value, found, floating) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return _like(x, [_taken_apart(part, found, floating) for part in x])
    raise LayerMisuse(f"without a rule, inputs and outputs must be tensors and plain values, got a {type(x).__name__}")


def _put_together(form: Any, tensors: Iterator[Tensor]) -> Any:
    if form is Tensor:
        return next(tensors)
    if type(form) is dict:
        return {key: _put_together(value, tensors) for key, value in form.items()}
    if isinstance(form, tuple | list) and not isinstance(form, torch.Size):
        return _like(form, [_put_together(part, tensors) for part in form])
    return form


def _like(form: Any, parts: list[Any]) -> Any:
    return type(form)(*parts) if hasattr(form, "_fields") else type(form)(parts)


@contextmanager
def _swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The layer's own parameters are `weights` inside."""
    own = {name: module._parameters[name] for name in weights}
    module._parameters.update(weights)  # type: ignore[arg-type]
    try:
        yield
    finally:
        module._parameters.update(own)


@contextmanager
def _plain_forwards(module: nn.Module) -> Iterator[None]:
    """Layers inside `module` run as their classes say, not as the engine made them."""
    engine = {
        inner: inner.__dict__.pop("forward")
        for inner in module.modules()
        if inner is not module and "forward" in inner.__dict__
    }
    try:
        yield
    finally:
        for inner, forward in engine.items():
            inner.__dict__["forward"] = forward

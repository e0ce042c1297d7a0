"""Exact per-sample gradient rows from one ordinary backward pass.

While a microbatch is open, every ruled layer runs on detached parameters and its output passes through `_Tap`, whose
backward gives the rule the gradient of that output. Autograd thus never builds a weight gradient, and rows are written
straight into one flat buffer [B, P]. B is the length of the loss vector, never a layer's first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from privkt.dpsgd.adapters import prompt_of_each
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.layout import Layout, PromptSite, Site, lay_out
from privkt.dpsgd.rules import LayerMisuse, RepeatedRule, parameter_of, working

_HALF = (torch.bfloat16, torch.float16)


class _Tap(torch.autograd.Function):
    """The identity; its backward hands the gradient on and to `add`, with the tensors kept in the forward pass.

    Saved tensors go through autograd, so checkpointing recomputes them like any other activation. `anchor` requires a
    gradient, so that the first trainable layer of a frozen model is reached.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, add: Callable[..., None], *kept: Tensor) -> Tensor:
        ctx.add = add
        ctx.save_for_backward(*kept)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        kept = ctx.saved_tensors  # read once: checkpointing recomputes on the first reading and frees afterwards
        ctx.add(kept, grad)
        return (grad, None, None, *(None for _ in kept))


class Engine:
    """Per-sample gradients of one model.

    Guarantee: after `rows`, row b is the gradient of losses[b] with respect to all trainable parameters, zero where
        `mask` is False; outside `microbatch` the model is as it was: flags, forwards, state_dict.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layout: Layout = lay_out(model)
        self._buffer: Tensor | None = None
        self._samples = 0
        self.half_precision = any(p.dtype in _HALF for p in model.parameters())
        self._planned_half = self.half_precision
        self._anchor = torch.zeros((), requires_grad=True, device=self.layout.device)

    @property
    def width(self) -> int:
        """P, the number of trainable values."""
        return self.layout.width

    @contextmanager
    def microbatch(self, samples: int) -> Iterator[None]:
        """The model runs on a batch of exactly `samples` inside the block."""
        self.open(samples)
        try:
            yield
        finally:
            self.close()

    def open(self, samples: int) -> None:
        """Begins a microbatch: zeroes the rows and puts the rules' forwards in place."""
        if self._buffer is None or self._buffer.shape[0] != samples:
            self._buffer = torch.zeros(samples, self.width, device=self.layout.device)
        else:
            self._buffer.zero_()
        self._samples = samples
        self._need_same_parameters()
        for site in self.layout.sites:
            site.module.__dict__["forward"] = self._forward(site)
        for prompt in self.layout.prompts:
            prompt.owner.__dict__["get_prompt"] = self._get_prompt(prompt)
        for slot in self.layout.slots:
            slot.parameter.grad = None

    def close(self) -> None:
        """Ends a microbatch: the model's own forwards are back."""
        for site in self.layout.sites:
            site.module.__dict__.pop("forward", None)
        for prompt in self.layout.prompts:
            prompt.owner.__dict__.pop("get_prompt", None)

    def _need_same_parameters(self) -> None:
        """A layer unfrozen later would get an ordinary gradient; one frozen later could lose a part unnoticed."""
        for site in self.layout.sites:
            for name, slot in site.slots.items():
                if parameter_of(site.module, name) is not slot.parameter:
                    raise RefusedTraining(
                        f"PrivateTraining: parameter {name!r} of layer {site.name!r} must be the one it was made with, "
                        "got another; move the model and add adapters before PrivateTraining and the optimizer"
                    )
        planned = {id(slot.parameter) for slot in self.layout.slots}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad != (id(parameter) in planned):
                raise RefusedTraining(
                    f"PrivateTraining: the trainable parameters must stay those it was made with, got a change of "
                    f"{name!r}; freeze and unfreeze before PrivateTraining and the optimizer"
                )

    def need_planned_precision(self) -> None:
        """Half precision makes the guarantee conditional, which can only be said before it is planned.

        Raises: RefusedTraining, if a layer computed in half precision (autocast, a cast model) and no weight had it.
        """
        self.half_precision = self.half_precision or any(p.dtype in _HALF for p in self.model.parameters())
        if self.half_precision and not self._planned_half:
            raise RefusedTraining(
                "PrivateTraining: a plan made for float32 must be computed in float32, and a layer ran in half "
                "precision (autocast, or the model was cast since); leave out autocast, or cast the model with "
                "model.to(torch.bfloat16) before PrivateTraining, whose guarantee then says what it depends on"
            )

    def forget(self) -> None:
        """Frees the buffer."""
        self._buffer = None

    def rows(self, losses: Tensor, mask: Tensor) -> Tensor:
        """The rows of this microbatch, [B, P] float32; the buffer is reused by the next one.

        Shapes: losses: [B], with its graph; mask: [B] bool, False for padding.
        Raises: RefusedTraining, if a trainable parameter was used outside its layer, so that rows would miss a part,
            or as `need_planned_precision`.
        """
        assert self._buffer is not None
        self.need_planned_precision()
        # `where` and not a product: a padding sample's loss may be anything, and 0 * NaN is NaN.
        total = torch.where(mask, losses, torch.zeros_like(losses)).sum()
        with torch.autocast(losses.device.type, enabled=False):
            total.backward()
        escaped = [slot.name for slot in self.layout.slots if slot.parameter.grad is not None]
        for slot in self.layout.slots:
            slot.parameter.grad = None
        if escaped:
            raise RefusedTraining(
                f"PrivateTraining: parameter {escaped[0]!r} must be used only by its own layer's forward, got a use "
                "elsewhere (functional attention, code that reads the weight); freeze it, or use plain LoRA"
            )
        return self._buffer.masked_fill_(~mask.unsqueeze(1), 0)

    def _views(self, slots: Mapping[str, Any]) -> dict[str, Tensor]:
        assert self._buffer is not None
        return {
            name: self._buffer[:, slot.start : slot.stop].view(self._samples, *slot.parameter.shape)
            for name, slot in slots.items()
        }

    def _note_precision(self, output: Tensor) -> None:
        # Under autocast frozen layers compute in half precision, whatever a trainable one gives.
        autocast = torch.is_autocast_enabled(output.device.type)
        self.half_precision = self.half_precision or autocast or output.dtype in _HALF

    def _forward(self, site: Site) -> Callable[..., Tensor]:
        module, rule, samples, rows = site.module, site.rule, self._samples, self._views(site.slots)
        repeated = isinstance(rule, RepeatedRule)

        def add(kept: tuple[Tensor, ...], grad: Tensor) -> None:
            rule.add_rows(module, kept, grad, rows)

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            weights = {
                name: None if (own := parameter_of(module, name)) is None else own.detach()
                for name in rule.parameters(module)
            }
            if repeated:
                weights = {name: self._repeat(site, name, weight, rows) for name, weight in weights.items()}
            try:
                output, kept = rule.forward(module, weights, samples, *args, **kwargs)
            except LayerMisuse as misuse:
                raise RefusedTraining(
                    f"PrivateTraining: layer {site.name!r} ({type(module).__name__}): {misuse}; freeze it or add a rule"
                ) from None
            if not torch.is_grad_enabled():
                return output
            self._note_precision(output)
            return output if repeated else _Tap.apply(output, self._anchor, add, *kept)

        return forward

    def _repeat(self, site: Site, name: str, weight: Tensor | None, rows: Mapping[str, Tensor]) -> Tensor | None:
        """`weight` once for each sample; its gradient becomes the rows of `name`."""
        if weight is None:
            return None
        expanded = weight.expand(self._samples, *weight.shape)
        if name not in rows or not torch.is_grad_enabled():
            return expanded

        def add(kept: tuple[Tensor, ...], grad: Tensor) -> None:
            site.rule.add_rows(site.module, kept, grad, {name: rows[name]})

        return _Tap.apply(expanded, self._anchor, add)

    def _get_prompt(self, prompt: PromptSite) -> Callable[..., Tensor]:
        slot, samples = prompt.slot, self._samples
        rows = None if slot is None else self._views({"weight": slot})["weight"]

        def add(kept: tuple[Tensor, ...], grad: Tensor) -> None:
            assert rows is not None
            rows.add_(working(grad).reshape(rows.shape))

        def get_prompt(batch_size: int, *args: Any, **kwargs: Any) -> Tensor:
            if batch_size != samples:
                raise RefusedTraining(
                    f"PrivateTraining: {prompt.name} must be asked for the {samples} samples of the microbatch, got "
                    f"{batch_size}; do not expand or split batches inside the model"
                )
            if slot is None:
                return prompt_of_each(prompt.owner, samples)
            expanded = slot.parameter.detach().expand(samples, *slot.parameter.shape)
            if not torch.is_grad_enabled():
                return expanded
            self._note_precision(expanded)
            return _Tap.apply(expanded, self._anchor, add)

        return get_prompt

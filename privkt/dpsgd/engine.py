"""Exact per-sample gradients from one ordinary backward pass.

While a microbatch is open, every ruled layer runs on detached parameters and its output passes through a `Tap`, whose
backward hands the gradient of that output to the rule. Autograd thus never builds a weight gradient. A parameter's
gradient is stored as rows, or kept as the tensors it is a product of (privkt.dpsgd.modes says when). B is the length of
the loss vector, never a layer's first dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from privkt import kernels
from privkt.dpsgd.adapters import prompt_of_each
from privkt.dpsgd.checks import HALF, computes_in_half
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.fallback import Call, FallbackRule
from privkt.dpsgd.gathering import Arrangements, Gathering
from privkt.dpsgd.gradients import RowStore, SampleGradients
from privkt.dpsgd.layers import LinearRule
from privkt.dpsgd.layout import Layout, PromptSite, Site, Slot, lay_out
from privkt.dpsgd.modes import Force
from privkt.dpsgd.rules import LayerMisuse, RepeatedRule, parameter_of
from privkt.dpsgd.taps import Tap, stand_in
from privkt.kernels import linear_cross_entropy


class Engine:
    """Per-sample gradients of one model.

    records_per_unit: K records in a row make one unit (a user): losses and masks are per record, gradients per unit.
    Guarantee: after `backward`, row b is the gradient of unit b's losses with respect to all trainable parameters, zero
        where `mask` is False; outside `microbatch` the model is as it was: flags, forwards, state_dict.
    """

    def __init__(self, model: nn.Module, *, records_per_unit: int = 1) -> None:
        if records_per_unit < 1:
            raise ValueError(
                f"Engine: records_per_unit must be at least 1, got {records_per_unit}; pass the public cap"
            )
        self.model = model = getattr(
            model, "_orig_mod", model
        )  # what torch.compile wraps; its names are the model's own
        self.records_per_unit = records_per_unit
        self.layout: Layout = lay_out(model)
        self.half_precision = computes_in_half(model, self.layout.device)
        self._planned_half = self.half_precision
        self._anchor = torch.zeros((), requires_grad=True, device=self.layout.device)
        self._store = RowStore(self.layout)
        self._arrangements = Arrangements(self.layout, records_per_unit)
        self._gathering: Gathering | None = None
        self._so_far: Tensor | None = None  # units of the pieces that the next microbatch may go on with
        self._inputs: RemovableHandle | None = None
        self._modes: dict[str, str] = {}
        self._disagree: list[tuple[Site, Tensor]] = []
        # Made once, or torch.compile would compile again for every microbatch; it runs them as they are.
        self._forwards = [
            (site.module, stand_in(self._forward(site), losses=self._head_losses(site))) for site in self.layout.sites
        ]
        self._get_prompts = [(prompt.owner, stand_in(self._get_prompt(prompt))) for prompt in self.layout.prompts]
        self._checkpointing = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]

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

    def open(self, samples: int, *, in_pieces: bool = False, keep: bool = False) -> None:
        """Begins a microbatch and puts the rules' forwards in place.

        in_pieces: its units have more records than fit; each piece of them is a microbatch. keep: this piece goes on
            with the rows of the piece before, so that after the last one they hold each unit's sum.
        """
        if samples % self.records_per_unit:
            raise ValueError(
                f"Engine.open: samples must be a multiple of records_per_unit = {self.records_per_unit}, got "
                f"{samples}; fill units up and mask what is filled"
            )
        if keep and self._so_far is None:
            raise TrainingError(
                "Engine.open(keep=True): the piece before must have been opened with in_pieces=True and given to "
                "backward, got none; open the first piece of a unit with in_pieces=True"
            )
        self._store.turn += 1
        self._gathering = Gathering(
            self.layout,
            self._arrangements,
            self._store,
            samples,
            records_per_unit=self.records_per_unit,
            in_pieces=in_pieces or keep,
            keep=keep,
        )
        if not keep:
            self._so_far = None
        self._need_same_parameters()
        for module, forward in self._forwards:
            module.__dict__["forward"] = forward
        for owner, get_prompt in self._get_prompts:
            owner.__dict__["get_prompt"] = get_prompt
        self._anchor_inputs()
        for slot in self.layout.slots:
            slot.parameter.grad = None

    def close(self) -> None:
        """Ends a microbatch: the model's own forwards are back."""
        for module, _ in self._forwards:
            module.__dict__.pop("forward", None)
        for owner, _ in self._get_prompts:
            owner.__dict__.pop("get_prompt", None)
        self._release_inputs()

    @contextmanager
    def anchored(self) -> Iterator[None]:
        """The model's input embeddings require a gradient inside, where reentrant checkpointing needs that."""
        self._anchor_inputs()
        try:
            yield
        finally:
            self._release_inputs()

    def _anchor_inputs(self) -> None:
        """Reentrant checkpointing gives layers no gradient at all unless an input of the checkpointed part has one."""
        self._release_inputs()
        if any(_reentrant(module) for module in self._checkpointing):
            embeddings = self.model.get_input_embeddings()  # type: ignore[operator]
            self._inputs = embeddings.register_forward_hook(self._anchor_output)

    def _release_inputs(self) -> None:
        if self._inputs is not None:
            self._inputs.remove()
        self._inputs = None

    def _anchor_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if output.requires_grad or not torch.is_grad_enabled():
            return output
        return Tap.apply(self._anchor, lambda kept, grad: None, 1, output)[0]

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
        self.half_precision = self.half_precision or computes_in_half(self.model, self.layout.device)
        if self.half_precision and not self._planned_half:
            raise RefusedTraining(
                "PrivateTraining: a plan made for float32 must be computed in float32, and a layer ran in half "
                "precision (autocast, TF32, or the model was cast since); leave it out, or cast the model with "
                "model.to(torch.bfloat16) before PrivateTraining, whose guarantee then says what it depends on"
            )

    def forget(self) -> None:
        """Frees everything that was computed from records."""
        self._store.forget()
        self._gathering, self._so_far = None, None

    def modes(self) -> dict[str, str]:
        """How the gradient of each parameter was held in the last backward pass (privkt.dpsgd.modes.mode_of)."""
        return dict(self._modes)

    def backward(self, losses: Tensor, mask: Tensor, *, force: Force | None = None) -> SampleGradients:
        """The per-sample gradients of this microbatch, good until the next one is opened.

        Shapes: losses: [B], with its graph; mask: [B] bool, False for padding.
        force: "rows" stores all rows, "kept" none that need not be; for checks, the result is the same.
        Raises: RefusedTraining, if a trainable parameter was used outside its layer, so that rows would miss a part,
            or as `need_planned_precision`.
        """
        gathering = self._gathering
        if gathering is None:
            raise TrainingError("Engine.backward: a microbatch must be open, got none; call open(samples) first")
        self.need_planned_precision()
        if not kernels.runs_on("clipped_product_sum", self.layout.device):
            force = "rows"  # the same result, and `modes` says so; samples_at_once has room for all rows
        gathering.force = gathering.force or force
        gathering.begin_backward(mask)
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
        if gathering.silent:
            raise RefusedTraining(
                f"PrivateTraining: {min(gathering.silent)!r} must run with gradients, got it under no_grad alone "
                "(also reentrant checkpointing of inputs that need no gradient); freeze it, or checkpoint with "
                "gradient_checkpointing_kwargs={'use_reentrant': False}"
            )
        self._need_agreement()
        self._gathering = None
        gradients = gathering.finish(self._so_far)
        self._so_far = gradients.mask if gathering.in_pieces else None
        self._modes = gradients.modes
        return gradients

    def rows(self, losses: Tensor, mask: Tensor) -> Tensor:
        """The rows of this microbatch, [units, P] float32; the buffer is reused by the next one.

        Shapes, Raises: as `backward`.
        """
        return self.backward(losses, mask, force="rows").rows()

    # -- the model while a microbatch is open -----------------------------------------------------------------------

    def _current(self) -> Gathering:
        if self._gathering is None:
            raise TrainingError(
                "Engine: the model must run before backward() or after the next open(), got a forward pass between "
                "them; run it outside the loop body, or after training.step()"
            )
        return self._gathering

    def _note_precision(self, output: Tensor) -> None:
        # Under autocast frozen layers compute in half precision, whatever a trainable one gives.
        autocast = torch.is_autocast_enabled(output.device.type)
        self.half_precision = self.half_precision or autocast or output.dtype in HALF

    def _forward(self, site: Site) -> Callable[..., Any]:
        if isinstance(site.rule, FallbackRule):
            return self._forward_without_rule(site)
        module, rule = site.module, site.rule
        repeated = isinstance(rule, RepeatedRule)

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            gathering = self._current()
            weights: dict[str, Tensor | None] = {
                name: None if (own := parameter_of(module, name)) is None else own.detach()
                for name in rule.parameters(module)
            }
            if repeated:
                weights = {name: self._repeat(site, name, weight) for name, weight in weights.items()}
            try:
                output, kept = rule.forward(module, weights, gathering.samples, *args, **kwargs)
            except LayerMisuse as misuse:
                raise self._misused(site, misuse) from None
            if not repeated:
                gathering.note(site, kept, output, recorded=torch.is_grad_enabled())
            if torch.is_grad_enabled():
                self._note_precision(output)
            if repeated or not torch.is_grad_enabled():
                return output

            def add(kept: tuple[Tensor, ...], grad: Tensor) -> None:
                gathering.arrive(site, kept, grad)

            return Tap.apply(self._anchor, add, 1, output, *kept)[0]

        return forward

    def _head_losses(self, site: Site) -> Callable[..., Tensor] | None:
        """What the losses of a trained head go through while a microbatch is open, so that no logits are made."""
        if not isinstance(site.rule, LinearRule) or not set(site.slots) <= {"weight", "bias"}:
            return None
        module = site.module

        def losses(hidden: Tensor, labels: Tensor, **options: Any) -> Tensor:
            gathering = self._current()
            if hidden.shape[0] != gathering.samples:
                came = f"got {hidden.shape[0]}"
                raise self._misused(site, LayerMisuse(f"its input must have {gathering.samples} samples, {came}"))
            gathering.note_head(site, hidden, recorded=torch.is_grad_enabled())
            if torch.is_grad_enabled():
                self._note_precision(hidden)
                hidden = Tap.apply(self._anchor, lambda kept, grad: None, 1, hidden)[0]
            weight, bias = parameter_of(module, "weight"), parameter_of(module, "bias")
            assert weight is not None
            return linear_cross_entropy(
                hidden,
                weight.detach(),
                labels,
                None if bias is None else bias.detach(),
                watch=lambda gradient: gathering.arrive_head(site, gradient),
                **options,
            )

        return losses

    def _forward_without_rule(self, site: Site) -> Callable[..., Any]:
        shared: set[int] = set()

        def forward(*args: Any, **kwargs: Any) -> Any:
            gathering = self._current()
            call = Call(site.module, site.slots, gathering.samples, shared)
            try:
                inputs, outputs = call.forward(args, kwargs)
            except LayerMisuse as misuse:
                raise self._misused(site, misuse) from None
            for slot in site.slots.values():
                gathering.note_form(slot, "fallback", recorded=torch.is_grad_enabled())
            if not torch.is_grad_enabled():
                return call.output(outputs)
            for output in outputs:
                self._note_precision(output)

            entered = len(inputs)  # and not the tensors, which checkpointing may drop

            def add(kept: tuple[Tensor, ...], *grads: Tensor) -> None:
                def take(sample: int, name: str, grad: Tensor) -> None:
                    gathering.arrive_alone(site.slots[name], sample, grad)

                agrees = call.rows(kept[:entered], kept[entered:], grads, take)
                self._disagree.append((site, ~agrees))

            tapped = Tap.apply(self._anchor, add, len(outputs), *outputs, *inputs, *outputs)
            return call.output(tapped)

        return forward

    def _get_prompt(self, prompt: PromptSite) -> Callable[..., Tensor]:
        slot = prompt.slot

        def get_prompt(batch_size: int, *args: Any, **kwargs: Any) -> Tensor:
            gathering = self._current()
            if batch_size != gathering.samples:
                raise RefusedTraining(
                    f"PrivateTraining: {prompt.name} must be asked for the {gathering.samples} samples of the "
                    f"microbatch, got {batch_size}; do not expand or split batches inside the model"
                )
            if slot is None:
                return prompt_of_each(prompt.owner, gathering.samples)
            return self._of_each(slot, slot.parameter.detach())

        return get_prompt

    def _repeat(self, site: Site, name: str, weight: Tensor | None) -> Tensor | None:
        """`weight` once for each sample; if it is trained, its gradient becomes the rows of `name`."""
        if weight is None or name in site.slots:
            return None if weight is None else self._of_each(site.slots[name], weight)
        return weight.expand(self._current().samples, *weight.shape)

    def _of_each(self, slot: Slot, weight: Tensor) -> Tensor:
        gathering = self._current()
        expanded = weight.expand(gathering.samples, *weight.shape)
        gathering.note_form(slot, "rows", recorded=torch.is_grad_enabled())
        if not torch.is_grad_enabled():
            return expanded
        self._note_precision(expanded)

        def add(kept: tuple[Tensor, ...], grad: Tensor) -> None:
            gathering.arrive_rows(slot, grad)

        return Tap.apply(self._anchor, add, 1, expanded)[0]

    def _misused(self, site: Site, misuse: LayerMisuse) -> RefusedTraining:
        return RefusedTraining(
            f"PrivateTraining: layer {site.name!r} ({type(site.module).__name__}): {misuse}; freeze it or add a rule"
        )

    def _need_agreement(self) -> None:
        """A layer without a rule must be a function of its sample alone, or running it again gives something else."""
        found, self._disagree = self._disagree, []
        if found and bool(torch.stack([disagrees for _, disagrees in found]).any()):
            site = next(site for site, disagrees in found if bool(disagrees))
            raise self._misused(site, LayerMisuse("run again for one sample alone it must give the same output"))


def _reentrant(module: nn.Module) -> bool:
    """Whether `module` checkpoints its layers, as transformers does, and not surely without re-entering autograd."""
    keywords = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {})
    return bool(getattr(module, "gradient_checkpointing", False)) and keywords.get("use_reentrant") is not False

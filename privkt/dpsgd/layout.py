"""Where each trainable parameter lies in the flat row, and which layer answers for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from privkt.dpsgd import adapters as _adapter_rules  # noqa: F401  (registers them)
from privkt.dpsgd import layers as _built_in_rules  # noqa: F401
from privkt.dpsgd.errors import RefusedTraining, UnknownLayer
from privkt.dpsgd.fallback import FallbackRule
from privkt.dpsgd.peft_types import adapter_kind, need_known_adapters
from privkt.dpsgd.rules import Rule, parameter_of, rule_for

_WITHOUT_RULE = FallbackRule()
_BATCH_COUPLED = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Slot:
    """One trainable parameter and its columns [start, stop) of the flat buffer."""

    name: str
    parameter: nn.Parameter
    start: int
    stop: int


@dataclass(frozen=True)
class Site:
    """A layer with trainable parameters: its rule, and the slot of each covered trainable attribute."""

    name: str
    module: nn.Module
    rule: Rule
    slots: dict[str, Slot]


@dataclass(frozen=True)
class PromptSite:
    """A PEFT soft prompt: `owner.get_prompt` repeats it for every sample.

    Without a slot the prompt comes from an encoder, which then runs on every sample, so that its layers' rules see the
    whole batch.
    """

    name: str
    owner: nn.Module
    slot: Slot | None


@dataclass(frozen=True)
class Layout:
    """All trainable parameters in one row of `width` float32 values.

    `still`: rows of parameters (an index into them) that no layer ever trains: an embedding's padding.
    """

    slots: tuple[Slot, ...]
    sites: tuple[Site, ...]
    prompts: tuple[PromptSite, ...] = ()
    width: int = field(default=0)
    still: tuple[tuple[Slot, Any], ...] = ()

    @property
    def device(self) -> torch.device:
        return self.slots[0].parameter.device

    @property
    def shared(self) -> int:
        """How many trainable values belong to weights of several layers."""
        uses = _uses(self.sites)
        return sum(slot.stop - slot.start for slot in self.slots if uses[slot.name] > 1)

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trainable parameters, in the order of the row."""
        return ((slot.name, slot.parameter) for slot in self.slots)

    def split(self, row: Tensor) -> Iterator[tuple[Slot, Tensor]]:
        """Each slot with its part of a [P] vector, in the parameter's shape."""
        return ((slot, row[slot.start : slot.stop].view(slot.parameter.shape)) for slot in self.slots)


def lay_out(model: nn.Module) -> Layout:
    """The layout of `model`'s trainable parameters.

    Edge cases: a parameter that several layers share has one slot, to which each of them adds.
    Raises: RefusedTraining, if nothing is trainable, samples are coupled, or parameters lie on several devices;
        UnknownLayer, naming every trainable layer that has no rule.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise RefusedTraining(
            f"PrivateTraining: the model must not be wrapped, got {type(model).__name__}; pass the model inside it"
        )
    coupled = [name for name, module in model.named_modules() if isinstance(module, _BATCH_COUPLED)]
    if coupled:
        raise RefusedTraining(
            f"PrivateTraining: layers must treat each sample alone, got batch statistics in {_listed(coupled)}; "
            "replace them by LayerNorm or GroupNorm"
        )
    need_known_adapters(model)
    slots = _slots(model)
    if not slots:
        raise RefusedTraining(
            "PrivateTraining: the model must have trainable parameters, got none with requires_grad; add an adapter "
            "or unfreeze a layer"
        )
    devices = {slot.parameter.device for slot in slots.values()}
    if len(devices) > 1:
        raise RefusedTraining(
            f"PrivateTraining: trainable parameters must lie on one device, got {len(devices)}; move the model whole"
        )
    prompts = tuple(_prompts(model, slots))
    sites = tuple(_sites(model, slots, {site.slot.name for site in prompts if site.slot is not None}))
    return Layout(tuple(slots.values()), sites, prompts, max(slot.stop for slot in slots.values()), _still(sites))


def _uses(sites: tuple[Site, ...]) -> Counter[str]:
    return Counter(slot.name for site in sites for slot in site.slots.values())


def _still(sites: tuple[Site, ...]) -> tuple[tuple[Slot, Any], ...]:
    uses = _uses(sites)
    return tuple(
        (site.slots[name], row)
        for site in sites
        for name, row in site.rule.untrained(site.module).items()
        if name in site.slots and uses[site.slots[name].name] == 1  # a tied head trains the row after all
    )


def _slots(model: nn.Module) -> dict[int, Slot]:
    slots: dict[int, Slot] = {}
    start = 0
    for name, parameter in model.named_parameters():  # shared parameters come once
        if parameter.requires_grad:
            slots[id(parameter)] = Slot(name, parameter, start, start + parameter.numel())
            start += parameter.numel()
    return slots


def _prompts(model: nn.Module, slots: dict[int, Slot]) -> Iterator[PromptSite]:
    config = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    if config is None or not config.is_prompt_learning:
        return
    kind = adapter_kind(config)
    if kind == "PREFIX_TUNING":  # its encoder runs on every sample, so ordinary rules see the whole batch
        return
    adapter = str(model.active_adapter)
    weight = model.prompt_encoder[adapter].embedding.weight  # type: ignore[index, union-attr]
    if kind == "P_TUNING":
        yield PromptSite(f"prompt_encoder.{adapter}", model, None)
    elif id(weight) in slots:
        yield PromptSite(f"prompt_encoder.{adapter}", model, slots[id(weight)])


def _sites(model: nn.Module, slots: dict[int, Slot], claimed: set[str]) -> Iterator[Site]:
    unknown: list[str] = []
    taken: set[tuple[int, str]] = set()  # parameters of children that their parent's rule answers for
    for name, module in model.named_modules():  # parents first, each module once
        rule = rule_for(module)
        own = {
            key: slots[id(p)]
            for key, p in module._parameters.items()
            if p is not None and id(p) in slots and (id(module), key) not in taken
        }
        for path in () if rule is None else rule.parameters(module):
            child, _, key = path.rpartition(".")
            if child and (p := parameter_of(module, path)) is not None and id(p) in slots:
                own[path] = slots[id(p)]
                taken.add((id(module.get_submodule(child)), key))
        own = {key: slot for key, slot in own.items() if slot.name not in claimed}
        if not own:
            continue
        if rule is None and _WITHOUT_RULE.handles(module):
            rule = _WITHOUT_RULE
        if rule is None or not set(own) <= set(rule.parameters(module)):
            unknown.append(f"{name or 'the model itself'} ({type(module).__name__}: {', '.join(sorted(own))})")
        elif "forward" in module.__dict__:
            raise RefusedTraining(
                f"PrivateTraining: layer {name!r} must have its class's forward, got one set on the instance; load the "
                "model without device_map or offloading hooks"
            )
        else:
            yield Site(name, module, rule, own)
    if unknown:
        raise UnknownLayer(
            f"PrivateTraining: every trainable layer must have a rule for per-sample gradients, got none for "
            f"{_listed(unknown)}; freeze it, or add a rule with privkt.dpsgd.register_rule (see privkt.dpsgd.rules)"
        )


def _listed(names: list[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")

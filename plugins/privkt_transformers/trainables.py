"""Which part of a network is trained: an adapter, everything, or the last layers; always on a copy."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from peft import PeftModel
from torch import nn

from privkt.contracts import Adapter, Recipe
from privkt.privacy import RefusedInput
from privkt_transformers.adapters import add_lora, resume_adapter
from privkt_transformers.loading import Loaded, clone
from privkt_transformers.options import LoraOptions

_SHORT = 64


@dataclass(frozen=True)
class Trainable:
    """A copy of a model in which some parameters are trained. `wrapped`: PEFT's own object around it, if any."""

    loaded: Loaded
    wrapped: PeftModel | None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: p for name, p in self.loaded.network.named_parameters() if p.requires_grad}


def trainable_copy(base: Loaded, recipe: Recipe, lora: LoraOptions | None, adapter: Adapter | None = None) -> Trainable:
    """A copy of the model, in training mode, that shares whatever it does not train.

    `adapter`: one to go on with, in place of a fresh one.
    Edge cases: `lora` wins over `recipe.trainable`; trained weights are float32 whatever the shared ones are ("all" and
        "last:K" want a float32 `base`).
    Raises: RefusedInput, for a `trainable` that is not one.
    """
    if lora is not None:
        bare = clone(base.network)
        _suit_attention(bare, base, recipe)
        if adapter is None:
            wrapped = add_lora(bare, lora, generative=base.generative, seed=recipe.seed)
        else:
            wrapped = resume_adapter(bare, adapter, base.folder.name)
        return Trainable(replace(base, network=wrapped.get_base_model().train(), weights_id=None), wrapped.train())
    network = base.network
    prefixes = None if recipe.trainable == "all" else _last_layers(network, recipe.trainable)

    def own(name: str) -> bool:
        return prefixes is None or name.startswith(prefixes)

    copied = clone(network, own)
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(own(name))
    _suit_attention(copied, base, recipe)
    return Trainable(replace(base, network=copied.train(), weights_id=None), None)


def _suit_attention(copied: Any, base: Loaded, recipe: Recipe) -> None:
    """Plain attention for short rows on a processor: the fused kernel is ten times slower backward than forward."""
    short = base.device.type == "cpu" and recipe.max_length <= _SHORT
    if short and getattr(copied.config, "_attn_implementation", None) == "sdpa":
        copied.set_attn_implementation("eager")


def needs_float32(recipe: Recipe, lora: LoraOptions | None) -> bool:
    """Whether the base itself must be in float32, because some of it is trained."""
    return lora is None and recipe.trainable != "head"


def _last_layers(network: nn.Module, trainable: str) -> tuple[str, ...]:
    """Name prefixes of the last K layers and of what comes after them but the head."""
    match = re.fullmatch(r"last:(\d+)", trainable)
    depth = int(network.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]
    if match is None or not 1 <= int(match.group(1)) <= depth:
        raise RefusedInput(
            f"recipe.trainable: must be all, head, or last:K with K from 1 to {depth}, got {trainable!r}; correct it"
        )
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            parent, _, own = name.rpartition(".")
            after = [child for child, _ in network.get_submodule(parent).named_children()]
            finals = [child for child in after[after.index(own) + 1 :] if "norm" in child or child == "ln_f"]
            start = f"{parent}." if parent else ""
            layers = [f"{name}.{i}." for i in range(depth - int(match.group(1)), depth)]
            return tuple(layers + [f"{start}{final}." for final in finals])
    raise RefusedInput(
        f"recipe.trainable: {trainable!r} needs a model made of a list of layers, and this one is not; use all or lora"
    )

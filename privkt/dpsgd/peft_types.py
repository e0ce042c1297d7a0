"""Which of PEFT's methods can be trained privately, and which of their settings are public.

A method is known by its type and the settings of `adapter_config.json` that may leave with its weights. Everything
else PEFT has is refused by name, before anything is spent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from privkt.dpsgd.errors import RefusedTraining, UnknownLayer

_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out")
_PROMPT = ("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "LORA": (
        *_TARGETS, "r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "use_dora", "lora_bias", "rank_pattern",
        "alpha_pattern", "trainable_token_indices",
    ),
    "IA3": ("target_modules", "exclude_modules", "feedforward_modules", "fan_in_fan_out"),
    "VERA": (*_TARGETS, "r", "vera_dropout", "bias", "projection_prng_key", "save_projection", "d_initial"),
    "LN_TUNING": ("target_modules", "exclude_modules"),
    "TRAINABLE_TOKENS": ("target_modules", "token_indices"),
    "PROMPT_TUNING": _PROMPT,
    "P_TUNING": (
        *_PROMPT, "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout",
    ),
    "PREFIX_TUNING": (*_PROMPT, "encoder_hidden_size", "prefix_projection"),
}  # fmt: skip
_COMMON = ("peft_type", "task_type", "modules_to_save")

_CHOOSE = "choose LORA, IA3, VERA, LN_TUNING, PROMPT_TUNING, P_TUNING or PREFIX_TUNING"
_INSTEAD = {
    "ADALORA": "its ranks change between steps, outside the noisy update; choose LORA with a fixed r",
    "MULTITASK_PROMPT_TUNING": "its prompt is made from factors that tasks share; choose PROMPT_TUNING for each task",
    "CPT": "its config holds training texts; choose PROMPT_TUNING",
    "ADAPTION_PROMPT": "its gates are read inside the attention; choose PREFIX_TUNING",
    "XLORA": "it runs the model twice a batch; choose LORA",
}
# Initial weights that come from data, or that change the base model, to which the released weights would not fit.
_INITIALISED = ("eva", "corda", "lora_ga", "pissa", "olora", "loftq", "mica")


def register_adapter(kind: str, settings: tuple[str, ...]) -> None:
    """Makes another of PEFT's methods known; its layers need rules (`privkt.dpsgd.register_rule`).

    `settings`: the public settings of its `adapter_config.json`, without which it cannot be loaded; no path, no text.
    """
    _SETTINGS[kind] = settings


def adapter_kind(config: Any) -> str:
    """The type of a PEFT config as PEFT writes it."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def public_settings(kind: str) -> tuple[str, ...]:
    """The settings of a known method's config that may leave."""
    return _COMMON + _SETTINGS[kind]


def need_known_adapters(model: nn.Module) -> None:
    """Refuses, by name, what PEFT makes of a model and no rule here is exact for.

    Raises: UnknownLayer, for a method or variant without a rule; RefusedTraining, for initial weights that a release
        would not fit.
    """
    configs = getattr(model, "peft_config", None)
    for config in configs.values() if isinstance(configs, dict) else ():
        kind = adapter_kind(config)
        if kind not in _SETTINGS:
            raise UnknownLayer(
                f"PrivateTraining: of PEFT's methods {', '.join(_SETTINGS)} have per-sample rules, got {kind}; "
                f"{_INSTEAD.get(kind, _CHOOSE)}, or add a rule and privkt.dpsgd.register_adapter"
            )
        if kind == "LORA":
            _need_plain_lora(config)


def _need_plain_lora(config: Any) -> None:
    variants = {f.name for f in dataclasses.fields(config) if f.metadata.get("is_lora_variant")} - {"use_dora"}
    for name in sorted(variants | {"target_parameters", "layer_replication"}):
        if getattr(config, name, None):
            raise UnknownLayer(
                f"PrivateTraining: of LoRA's variants use_rslora, use_dora and lora_bias have per-sample rules, got "
                f"{name}; leave it out"
            )
    start = config.init_lora_weights if isinstance(config.init_lora_weights, str) else ""
    if start.lower().startswith(_INITIALISED):
        raise RefusedTraining(
            f"PrivateTraining: LoRA must begin with weights that neither read data nor change the base model, got "
            f"init_lora_weights={start!r}; choose True, 'gaussian' or 'orthogonal'"
        )

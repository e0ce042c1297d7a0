"""What a finished training gives away: the trained files without anything that a run adds to them, and a privacy card.

PEFT writes paths of this machine, base-model folders and initialisation text into `adapter_config.json`; here the file
is built anew from a list of known public settings.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from privkt.contracts.messages import Adapter, Model, SoftPrompt
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.peft_types import adapter_kind, public_settings
from privkt.dpsgd.plan import Plan
from privkt.privacy.guarantee import Guarantee, rounded_up

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
UNNAMED = "undeclared-base-model"


def payload(
    model: nn.Module, *, guarantee: Guarantee, plan: Plan, model_name: str | None, folder: Path | None
) -> Adapter | SoftPrompt | Model:
    """The message that `model` becomes: Adapter or SoftPrompt for a PEFT model, otherwise Model in `folder`.

    `model_name` is the public name of the base model, never a path.
    """
    card = privacy_card(guarantee, plan, model_name or UNNAMED)
    if not hasattr(model, "peft_config"):
        return _whole(model, folder, card)
    files = {
        CONFIG: json.dumps(_adapter_config(model, model_name or UNNAMED), indent=2, sort_keys=True).encode() + b"\n",
        WEIGHTS: _adapter_weights(model),
        CARD: card.encode(),
    }
    learned_prompt = model.peft_config[_adapter(model)].is_prompt_learning  # type: ignore[index, union-attr]
    return SoftPrompt(files) if learned_prompt else Adapter(files)


_NOISES = {"correlated": "correlated Gaussian", "discrete": "exact discrete Gaussian"}


def privacy_card(guarantee: Guarantee, plan: Plan, model_name: str) -> str:
    """The README of a release: what is promised and by which numbers; no loss, no count of what was drawn."""
    replaced = rounded_up(plan.replace_one_epsilon)
    rows = {
        "noise_multiplier": f"{plan.noise_multiplier:.6g}",
        "sampling_rate": f"{plan.sampling_rate:.6g}",
        "steps": str(plan.steps),
        "max_grad_norm": f"{plan.max_grad_norm:g}",
        "epsilon": rounded_up(guarantee.epsilon),
        "delta": f"{guarantee.delta:g}",
        "epsilon if a record is replaced": replaced if guarantee.is_private else "inf",
        "unit, relation": f"{plan.unit}, {plan.neighbouring}",
        "N (declared, public)": str(plan.n),
    }
    clipping = "flat" if plan.clipping is None else plan.clipping.kind
    noise = _NOISES.get(plan.noise, "correctly rounded Gaussian")
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# Privately trained weights for {model_name}\n\n{guarantee}\n\n| | |\n| --- | --- |\n{table}\n\n"
        f"Trained by DP-SGD with {plan.sampler} sampling, {clipping} clipping of each {plan.unit} and {noise} noise.\n"
        "The guarantee is computational (ChaCha20, SHAKE-256). Not covered: hyper-parameters chosen by looking\n"
        "at the private data, and any other use of that data.\n"
    )


def _adapter(model: Any) -> str:
    name = model.active_adapter
    if not isinstance(name, str):
        raise RefusedTraining("finish: exactly one adapter must be active, got several; select one with set_adapter")
    return name


def _adapter_config(model: Any, model_name: str) -> dict[str, Any]:
    config = model.peft_config[_adapter(model)]
    kind = adapter_kind(config)
    values = {name: _plain(getattr(config, name)) for name in public_settings(kind) if hasattr(config, name)}
    values["base_model_name_or_path"] = model_name
    values["inference_mode"] = True
    if kind == "PROMPT_TUNING":
        values["prompt_tuning_init"] = "RANDOM"  # how it began; an initial text stays here
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value


def _adapter_weights(model: Any) -> bytes:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    state = get_peft_model_state_dict(model, adapter_name=_adapter(model), save_embedding_layers=False)
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in sorted(state.items())}
    return save(tensors)


def _whole(model: Any, folder: Path | None, card: str) -> Model:
    if folder is None:
        raise RefusedTraining("finish: a model without an adapter is written to a folder, got none; pass folder=")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / CARD).write_text(card)
    return Model(folder)

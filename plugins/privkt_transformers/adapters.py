"""PEFT adapters and soft prompts as messages: put over shared weights, and taken from a trained network."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from privkt.contracts import Adapter, BackendError, SoftPrompt
from privkt.synthesis.quiet import quiet_transformers
from privkt_transformers.loading import Loaded, clone
from privkt_transformers.options import LoraOptions

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
_SOFT_PROMPT_KEY = "prompt_embeddings"


def with_adapter(base: Loaded, adapter: Adapter) -> Loaded:
    """The model with an adapter in place; the base weights stay shared and untouched.

    Raises: BackendError, when the adapter belongs to another architecture.
    """
    wrapped = _wrapped(clone(base.network), adapter, base.folder.name, trainable=False)
    inner = wrapped.get_base_model().to(base.dtype).eval().requires_grad_(False)
    return replace(base, network=inner, weights_id=None)


def resume_adapter(network: nn.Module, adapter: Adapter, name: str) -> PeftModel:
    """A network (a clone of its own) with an adapter in float32, the only part that is trained, to go on with.

    Raises: BackendError, when the adapter belongs to another architecture than that of the model `name`.
    """
    return _wrapped(network, adapter, name, trainable=True)


def _wrapped(network: nn.Module, adapter: Adapter, name: str, *, trainable: bool) -> PeftModel:
    """The network wrapped by PEFT. Weights are never on disk: they may be those of a training without privacy."""
    for file in (CONFIG, WEIGHTS):
        if file not in adapter.files:
            raise BackendError(f"adapter: it must hold {file}, and it does not; train it again")
    try:
        # Base weights beside targeted embeddings are those of the base model, and stay as they are.
        tensors = {k: v for k, v in load_tensors(adapter.files[WEIGHTS]).items() if ".base_layer." not in k}
        with quiet_transformers():
            config = _settings(adapter.files[CONFIG])
            config.inference_mode = not trainable
            wrapped = get_peft_model(network, config, autocast_adapter_dtype=trainable)
            set_peft_model_state_dict(wrapped, tensors)
            missing = get_peft_model_state_dict(wrapped, save_embedding_layers=False).keys() ^ tensors.keys()
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise BackendError(
            f"adapter: it must fit {name!r}, and PEFT raised {type(error).__name__}; use it over the model that it was "
            "trained on"
        ) from None
    if missing:
        raise BackendError(
            f"adapter: it must fit {name!r}, and they differ in {len(missing)} tensors, one is {min(missing)!r}; use "
            "it over the model that it was trained on"
        )
    return wrapped if trainable else wrapped.eval()


def _settings(content: bytes) -> PeftConfig:
    """The settings that PEFT reads in adapter_config.json."""
    with tempfile.TemporaryDirectory(prefix="privkt-") as folder:
        Path(folder, CONFIG).write_bytes(content)
        return PeftConfig.from_pretrained(folder)


def with_soft_prompt(base: Loaded, prompt: SoftPrompt) -> Loaded:
    """The model with a tuned prompt before every sequence.

    Raises: BackendError, when the prompt is of another kind or width.
    """
    tensors = load_tensors(prompt.files[WEIGHTS]) if WEIGHTS in prompt.files else {}
    width = base.network.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    rows = tensors.get(_SOFT_PROMPT_KEY)
    if rows is None or rows.ndim != 2 or rows.shape[1] != width:
        raise BackendError(
            f"soft prompt: it must be one tensor {_SOFT_PROMPT_KEY} of rows of {width} numbers, and it is not; use a "
            "PROMPT_TUNING prompt that was trained on this model"
        )
    return replace(base, prefix=rows.to(base.device, torch.float32), weights_id=None)


def add_lora(network: nn.Module, options: LoraOptions, *, generative: bool, seed: int) -> PeftModel:
    """A network (a clone of its own) with a fresh low-rank adapter in float32, the only part that is trained.

    Raises: BackendError, when no module has the names that were asked for.
    """
    targets: Any = options.targets
    layers = None
    if options.layers is not None:
        if targets == "all-linear":  # PEFT knows the word only for all layers at once
            targets = _linear_names(network)
        depth = network.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
        layers = list(range(max(0, depth - options.layers), depth))
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.scale_numerator,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=list(targets) if isinstance(targets, tuple) else targets,
        layers_to_transform=layers,
        task_type="CAUSAL_LM" if generative else "FEATURE_EXTRACTION",
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        try:
            return get_peft_model(network, config, autocast_adapter_dtype=True)
        except ValueError as error:
            raise BackendError(
                f"lora: the targets must be modules of the model, and PEFT refused: {error}; correct `lora.targets`"
            ) from None


def _linear_names(network: Any) -> tuple[str, ...]:
    """Last components of the names of all linear modules but the head."""
    head = network.get_output_embeddings()
    linear = (name for name, m in network.named_modules() if isinstance(m, nn.Linear) and m is not head)
    return tuple(sorted({name.rpartition(".")[2] for name in linear}))


def adapter_files(wrapped: PeftModel, name: str) -> Adapter:
    """A trained adapter as PEFT's three files, with the model's public name in place of any path."""
    with tempfile.TemporaryDirectory(prefix="privkt-") as folder:
        wrapped.peft_config["default"].save_pretrained(folder)
        config: dict[str, Any] = json.loads(Path(folder, CONFIG).read_text(encoding="utf-8"))
    with quiet_transformers():
        tensors = get_peft_model_state_dict(wrapped)
    # Copies: tied weights are one storage, which safetensors does not take.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    weights = save_tensors(own, metadata={"format": "pt"})
    config.update(base_model_name_or_path=name, inference_mode=True)
    readme = f"A PEFT adapter for {name}, trained with privkt.\n"
    files: Mapping[str, bytes] = {
        CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(),
        WEIGHTS: weights,
        README: readme.encode(),
    }
    return Adapter(files)


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """The adapter's files in `folder`."""
    for name, content in adapter.files.items():
        (folder / name).write_bytes(content)


def read_adapter(folder: Path) -> Adapter:
    """The adapter whose files lie in `folder`."""
    return Adapter({name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS, README)})

"""Soft prompts: their first rows, and their form as PEFT's files."""

from __future__ import annotations

import json
from typing import Any

import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from privkt.contracts import SoftPrompt
from privkt.privacy import RefusedInput
from privkt.synthesis.quiet import quiet_transformers
from privkt_post.networks import Net

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
_KEY = "prompt_embeddings"


def initial_rows(net: Net, text: str, tokens: int) -> Tensor:
    """The embeddings of a public sentence, repeated to `tokens` rows; [tokens, d] float32 in the model's own table.

    Raises: RefusedInput, for a sentence without tokens.
    """
    ids = list(net.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise RefusedInput("post.prompt.text: must have at least one token, got none; write a sentence")
    repeated = (ids * (tokens // len(ids) + 1))[:tokens]
    with torch.no_grad():
        return net.embed(torch.tensor(repeated, device=net.device)).float().clone()


def wrapped(net: Net, rows: Tensor) -> PeftModel:
    """PEFT's prompt-tuning model around `net`, its prompt at `rows` and the only thing that is trained."""
    with quiet_transformers():
        model: Any = get_peft_model(net.network, PromptTuningConfig(**_settings(net), num_virtual_tokens=len(rows)))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weight = model.prompt_encoder[model.active_adapter].embedding.weight
    weight.data = rows.detach().to(net.device, torch.float32, copy=True)
    weight.requires_grad_(True)
    return model.eval()


def prompt_parameter(model: Any) -> torch.nn.Parameter:
    """The rows that are trained."""
    return model.prompt_encoder[model.active_adapter].embedding.weight


def to_message(net: Net, rows: Tensor, *, name: str, card: str) -> SoftPrompt:
    """Rows as PEFT's files. `name`: the public name of the model they belong to; `card`: the README."""
    config = {
        **_settings(net),
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": int(rows.shape[0]),
        "token_dim": int(rows.shape[1]),
        "num_transformer_submodules": 1,
        "num_attention_heads": int(net.config.num_attention_heads),
        "num_layers": int(net.config.num_hidden_layers),
        "base_model_name_or_path": name,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    return SoftPrompt(
        {
            CONFIG: json.dumps(config, indent=2, sort_keys=True).encode() + b"\n",
            WEIGHTS: save_tensors({_KEY: rows.detach().float().cpu().contiguous()}),
            CARD: card.encode(),
        }
    )


def rows_of(prompt: SoftPrompt, width: int | None = None) -> Tensor:
    """The rows of a soft prompt, [n, d] float32. Raises RefusedInput, if it is of another kind or width."""
    tensors = load_tensors(prompt.files[WEIGHTS]) if WEIGHTS in prompt.files else {}
    rows = tensors.get(_KEY)
    fits = rows is not None and rows.ndim == 2 and (width is None or rows.shape[1] == width)
    if rows is None or not fits or not bool(torch.isfinite(rows).all()):
        raise RefusedInput(
            f"post: a prompt must be one tensor {_KEY} of rows of {width or 'd'} finite numbers, and it is not; use a "
            "PROMPT_TUNING prompt that was tuned on this model"
        )
    return rows.float()


def with_card(prompt: SoftPrompt, card: str) -> SoftPrompt:
    """The same prompt with another README."""
    return SoftPrompt({**prompt.files, CARD: card.encode()})


def _settings(net: Net) -> dict[str, Any]:
    # PEFT has no masked task: of its types this one hands a prompt to whatever model it is given.
    return {"task_type": "FEATURE_EXTRACTION" if net.masked else "CAUSAL_LM"}

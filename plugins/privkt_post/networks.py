"""A language model opened for work inside it: embeddings in, hidden states and scores out, for both families.

Backends hide a model's inside, so this method loads copies of its own from the folder that a backend names
(`Backend.weights_folder`). Nothing here ever changes a weight.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from privkt.contracts import Backend, BackendError
from privkt.privacy import RefusedInput
from privkt.synthesis.quiet import quiet_transformers

_FALLBACK_CONTEXT = 2048
_MASKED_HEADS = ("cls", "lm_head")  # of the BERT and the RoBERTa family


@dataclass(frozen=True, eq=False)
class Net:
    """A frozen model with its tokenizer. `masked`: it fills masks (BERT, RoBERTa) instead of continuing text."""

    network: Any
    tokenizer: Any
    folder: Path
    device: torch.device
    masked: bool

    @property
    def config(self) -> Any:
        return self.network.config.get_text_config()

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self.network.get_input_embeddings().weight.shape[1])

    @property
    def context(self) -> int:
        """How many positions one sequence may have."""
        for name in ("max_position_embeddings", "n_positions"):
            if (length := getattr(self.config, name, None)) is not None:
                # RoBERTa counts positions from the padding id on.
                return int(length) - (int(self.config.pad_token_id or 0) + 1 if self._counts_from_padding else 0)
        return _FALLBACK_CONTEXT

    @property
    def _counts_from_padding(self) -> bool:
        return self.masked and self.config.model_type in ("roberta", "xlm-roberta", "camembert")

    @property
    def pad(self) -> int:
        """The id that fills; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of ids, [..., d], as the first layer is given them."""
        return self.network.get_input_embeddings()(ids)

    def hidden(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states, [b, t, d]; padding stands on the right."""
        inner = getattr(self.network, self.network.base_model_prefix)
        takes = inspect.signature(inner.forward).parameters
        keywords: dict[str, Any] = {"use_cache": False} if "use_cache" in takes and not self.masked else {}
        return inner(inputs_embeds=embeddings, attention_mask=mask, **keywords).last_hidden_state

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of every token, [..., V] float32, with the scalings that some families put after the head."""
        if self.masked:
            return masked_head(self.network)(hidden).float()
        logits = self.network.get_output_embeddings()(hidden).float()
        config = self.network.config
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        if (factor := getattr(config, "logit_scale", None)) is not None:
            logits = logits * factor
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits


def masked_head(network: Any) -> nn.Module:
    """What a masked model puts on its hidden states. Raises RefusedInput for a family without a known one."""
    for name in _MASKED_HEADS:
        if isinstance(head := getattr(network, name, None), nn.Module):
            return head
    raise RefusedInput(
        f"post: masked models must be of the BERT or RoBERTa families, got {network.config.model_type}; choose another"
    )


def open_net(folder: Path, options: Mapping[str, Any] | None = None) -> Net:
    """The model in a folder, frozen, in evaluation mode. `options`: `device` and `dtype` of a model block.

    Raises: RefusedInput, for a model that neither continues text nor fills masks; BackendError, when it cannot load.
    """
    options = options or {}
    device = _device(str(options.get("device", "auto")))
    masked = is_masked(folder)
    kind: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:
        with quiet_transformers():
            network: Any = kind.from_pretrained(
                folder, dtype=pick_dtype(str(options.get("dtype", "auto")), device), local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(
            f"model {folder.name!r}: its folder must load with transformers, and it raised {type(error).__name__}; "
            "fetch the model again, or check that its tokenizer lies beside it"
        ) from None
    network.to(device).eval().requires_grad_(False)
    if device.type == "cpu" and getattr(network.config, "_attn_implementation", None) == "sdpa":
        # On a processor the fused kernel is far slower backward than plain products, and sequences here are short.
        network.set_attn_implementation("eager")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return Net(network, tokenizer, folder, device, masked)


def open_role(backend: Backend) -> Net:
    """The model behind a role, where the role's options put it."""
    return open_net(backend.weights_folder(), backend.options)


def width_of(folder: Path) -> int:
    """Length of an embedding of the model in a folder, whose weights are not read."""
    with quiet_transformers():
        return int(AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config().hidden_size)


def is_masked(folder: Path) -> bool:
    """Whether the model in a folder fills masks. Raises RefusedInput, if it has no language-model head at all."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or ()
    if any("MaskedLM" in name for name in names):
        return True
    if any("CausalLM" in name or name.endswith("LMHeadModel") for name in names):
        return False
    raise RefusedInput(
        f"model {folder.name!r}: must be a causal or masked language model, got {', '.join(names) or 'no architecture'}"
        "; give a model that was saved with its head"
    )


def parameters_of(network: nn.Module) -> int:
    """How many numbers the weights hold, shared ones once."""
    return sum(p.numel() for p in network.parameters())


def _device(option: str) -> torch.device:
    if option == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(option)


def pick_dtype(option: str, device: torch.device) -> torch.dtype:
    """bfloat16 where it is asked for, or on a GPU by default: soft prompts move by little, and a processor rounds."""
    if option == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if option == "bfloat16" else torch.float32

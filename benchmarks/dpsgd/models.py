"""Models, batches and losses that all contenders share. Nothing is downloaded: weights and tokens are random."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from .cases import Case

IGNORED = -100
VIRTUAL_TOKENS = 20
Batch = dict[str, Tensor]


def build(case: Case, device: str) -> nn.Module:
    """The model of a case in training mode, with the same weights each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.words,
        hidden_size=case.width,
        intermediate_size=case.width * 8 // 3,
        num_hidden_layers=case.layers,
        num_attention_heads=max(2, case.width // 64),
        num_key_value_heads=max(2, case.width // 64),
        max_position_embeddings=2048,
        tie_word_embeddings=case.tied,
        pad_token_id=None,
        use_cache=False,
    )
    model: nn.Module = LlamaForCausalLM(config)
    if case.method == "lora":
        model = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, when half of the gradients are zero too
                nn.init.normal_(parameter, std=0.02)
    elif case.method == "prompt":
        model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL_TOKENS))
    return model.to(device).train()


def batch_of(case: Case, device: str) -> Batch:
    """Records of full length, the same each time: every contender sees as many tokens and no padding."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, case.words, (case.batch, case.length), generator=generator).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def emptied(batch: Batch, records: list[int]) -> Batch:
    """The batch with some records emptied: nothing of them is learned, shapes and divisor stay (zero-out)."""
    labels = batch["labels"].clone()
    labels[records] = IGNORED
    return {**batch, "labels": labels}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """[B, T, V], without the positions of a soft prompt."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[:, logits.shape[1] - batch["labels"].shape[1] :]


def next_tokens(labels: Tensor) -> Tensor:
    """Labels moved by one place, so that logits need no copy."""
    return F.pad(labels, (0, 1), value=IGNORED)[:, 1:]


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """[B]: next-token loss of each record over its own tokens; zero for an emptied record."""
    targets = next_tokens(labels)
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")
    return losses.view(targets.shape).sum(1) / (targets != IGNORED).sum(1).clamp(min=1)

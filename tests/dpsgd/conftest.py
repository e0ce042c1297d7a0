"""Tiny models, records and trainings. Records are sequences of token ids; nothing here is read from a disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from privkt.dpsgd import Keys, PrivateTraining
from privkt.dpsgd.engine import Engine
from privkt.privacy import Budget, Ledger

sys.path.insert(0, str(Path(__file__).parent))  # test_adapters.py imports trainable_models by name

WORDS = 61
_LLAMA: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_GPT2 = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
_QUIET = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


def _llama(**changes: Any) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**{**_LLAMA, **changes}))


_CLASSIFIER: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 70,
    "num_labels": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _albert() -> nn.Module:
    """One layer that runs three times."""
    config = AlbertConfig(**{**_CLASSIFIER, "num_hidden_layers": 3}, embedding_size=8, classifier_dropout_prob=0.0)
    return AlbertForSequenceClassification(config)


def _lora(model: nn.Module, **changes: Any) -> nn.Module:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    wrapped = get_peft_model(model, LoraConfig(**{**settings, **changes}))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide the gradient of A
            nn.init.normal_(parameter, std=0.3)
    return wrapped


def _prompted(kind: Any, model: nn.Module) -> nn.Module:
    return get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": _llama,
    "llama-tied": lambda: _llama(tie_word_embeddings=True),
    "llama-biased": lambda: _llama(attention_bias=True, mlp_bias=True),
    "llama-lora": lambda: _lora(_llama()),
    "llama-rslora": lambda: _lora(_llama(), use_rslora=True),
    "llama-lora-dropout": lambda: _lora(_llama(attention_dropout=0.4), lora_dropout=0.5),
    "llama-lora-head": lambda: _lora(_llama(), modules_to_save=["lm_head"]),
    "llama-lora-bias": lambda: _lora(_llama(attention_bias=True), bias="all"),
    "llama-prompt": lambda: _prompted(PromptTuningConfig, _llama()),
    "llama-prefix": lambda: _prompted(PrefixTuningConfig, _llama()),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**_GPT2, **_QUIET, tie_word_embeddings=False)),
    "gpt2-tied": lambda: GPT2LMHeadModel(GPT2Config(**_GPT2, **_QUIET, tie_word_embeddings=True)),
    "gpt2-lora": lambda: _lora(GPT2LMHeadModel(GPT2Config(**_GPT2, **_QUIET)), target_modules=["c_attn"]),
    "gpt2-prompt": lambda: _prompted(PromptTuningConfig, GPT2LMHeadModel(GPT2Config(**_GPT2, **_QUIET))),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_LLAMA, head_dim=4)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_LLAMA, head_dim=4)),
    "bert": lambda: BertForSequenceClassification(BertConfig(**_CLASSIFIER)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**_CLASSIFIER)),
    "albert": _albert,
}


def make(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny random model in training mode, the same each time; its padding_idx rows are not zero."""
    torch.manual_seed(7)
    model = MODELS[name]().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms begin at 1 and biases at 0, where wrong rules look right
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def records(n: int = 60, shortest: int = 4) -> list[list[int]]:
    """Token ids of several lengths."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, WORDS, (shortest + i % 5,), generator=generator).tolist() for i in range(n)]


def collate(rows: list[list[int]]) -> dict[str, Tensor]:
    """Right-padded input_ids, attention_mask and labels."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def losses_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Per-sample losses of a causal model or a classifier."""
    from privkt.dpsgd import causal_lm_losses, classification_losses

    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if hasattr(model, "classifier"):
        return classification_losses(model(**inputs).logits, batch["input_ids"][:, 0] % 3)
    return causal_lm_losses(model(**inputs, use_cache=False).logits, batch["labels"])


def loop(model: nn.Module, rows: list[list[int]]) -> Tensor:
    """[n, P] float64: ordinary gradients, one sample after the other."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for row in rows:
        grads = torch.autograd.grad(losses_of(model, collate([row])).sum(), parameters, allow_unused=True)
        pairs = zip(grads, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for g, p in pairs]))
    return torch.stack(found)


def engine_rows(model: nn.Module, rows: list[list[int]], mask: list[bool] | None = None) -> Tensor:
    """The engine's rows for one microbatch."""
    engine = Engine(model)
    with engine.microbatch(len(rows)):
        return engine.rows(losses_of(model, collate(rows)), torch.tensor(mask or [True] * len(rows))).clone()


class Helpers:
    """The functions above, for tests."""

    make = staticmethod(make)
    records = staticmethod(records)
    collate = staticmethod(collate)
    losses_of = staticmethod(losses_of)
    loop = staticmethod(loop)
    engine_rows = staticmethod(engine_rows)
    models = tuple(MODELS)

    @staticmethod
    def training(model: nn.Module | None = None, **changes: Any) -> PrivateTraining:
        """A training of a tiny LoRA model on 60 records: 12 expected a step, microbatches of 4, 3 steps."""
        model = make("llama-lora") if model is None else model
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        settings: dict[str, Any] = {
            "dataset": records(),
            "optimizer": optimizer,
            "collate_fn": collate,
            "budget": Budget(8.0, 1e-3),
            "size": 60,
            "batch_size": 12,
            "steps": 3,
            "microbatch_size": 4,
            "run_id": "run",
            "purpose": "generator",
            "fingerprint": "f" * 64,
            "data_set_id": "d" * 32,
            "verify": False,
        }
        return PrivateTraining(model, **{**settings, **changes})

    @staticmethod
    def run(
        training: PrivateTraining,
        stop_after: int | None = None,
        change: Callable[[Tensor], Any] = lambda losses: losses,
        times: int = 1,
    ) -> None:
        """The loop, to its end or until so many logical steps are done; `change` is done to the losses."""
        for batch in training:
            losses = change(training.causal_lm_losses(batch))
            for _ in range(times):
                training.step(losses)
            if stop_after is not None and training.steps_taken >= stop_after:
                break

    @staticmethod
    def weights(model: nn.Module) -> Tensor:
        """All trainable values in one vector."""
        return torch.cat([p.detach().flatten().double() for p in model.parameters() if p.requires_grad])

    @staticmethod
    def keys(seed: int = 0) -> Keys:
        return Keys.for_tests(seed)


@pytest.fixture
def dp() -> type[Helpers]:
    """What the tests of private training share."""
    return Helpers


@pytest.fixture
def ledger(tmp_path: Any) -> Ledger:
    """An empty ledger of a data set of 60 records."""
    return Ledger.open_or_create("tiny", cap_epsilon=8.0, cap_delta=1e-3, size=60, state=tmp_path / "state")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)

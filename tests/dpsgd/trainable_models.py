"""Tiny models of every family and adapter that can be trained privately: the list that docs/training.md promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from privkt.dpsgd import causal_lm_losses, classification_losses

V, T, B, K = 31, 6, 4, 3
_DECODER = {
    "vocab_size": V,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "num_labels": K,
}
_GPT2 = {"vocab_size": V, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
_STILL = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "num_labels": K}
_BERT = {
    "vocab_size": V,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "num_labels": K,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def llama(kind: type = LlamaForCausalLM, **changes: Any) -> nn.Module:
    return kind(LlamaConfig(**{**_DECODER, "tie_word_embeddings": False, **changes}))


def gpt2(kind: type = GPT2LMHeadModel, **changes: Any) -> nn.Module:
    return kind(GPT2Config(**{**_GPT2, **_STILL, **changes}))


def gemma() -> nn.Module:
    return GemmaForCausalLM(GemmaConfig(**_DECODER, head_dim=4))


def bert(kind: type = BertForSequenceClassification) -> nn.Module:
    return kind(BertConfig(**_BERT))


class Case(NamedTuple):
    """A base model, and what makes it trainable: an adapter's config, or names of parts of the base model."""

    base: Callable[[], nn.Module]
    config: Callable[[], PeftConfig] | None = None
    parts: tuple[str, ...] = ("",)


def _peft(kind: type, base: Callable[[], nn.Module], task: str = "CAUSAL_LM", **settings: Any) -> Case:
    return Case(base, lambda: kind(task_type=task, **settings))


def lora(base: Callable[[], nn.Module] = llama, task: str = "CAUSAL_LM", **settings: Any) -> Case:
    names: dict[Any, list[str]] = {llama: ["q_proj", "down_proj"], gpt2: ["c_attn", "c_proj"], bert: ["query", "value"]}
    return _peft(LoraConfig, base, task, **{"r": 2, "target_modules": names.get(base), **settings})


def only(base: Callable[[], nn.Module], *parts: str) -> Case:
    return Case(base, parts=parts)


def _prompt(kind: type, base: Callable[[], nn.Module] = llama, task: str = "CAUSAL_LM", **settings: Any) -> Case:
    return _peft(kind, base, task, num_virtual_tokens=3, **settings)


def _of(base: Callable[..., nn.Module], kind: type) -> Callable[[], nn.Module]:
    return lambda: base(kind)


# family-method: what is built. A line here is a promise of docs/training.md.
CASES: dict[str, Case] = {
    "llama-lora": lora(),
    "llama-rslora": lora(use_rslora=True),
    "llama-lora-lora_bias": lora(lora_bias=True, base=lambda: llama(mlp_bias=True), target_modules=["down_proj"]),
    "llama-lora-bias_lora_only": lora(
        bias="lora_only", base=lambda: llama(attention_bias=True), target_modules=["q_proj"]
    ),
    "llama-lora-embedding": lora(target_modules=["embed_tokens", "q_proj"]),
    "llama-lora-head": lora(target_modules=["lm_head"]),
    "llama-lora-modules_to_save": lora(modules_to_save=["lm_head", "embed_tokens"]),
    "llama-lora-tokens": lora(trainable_token_indices=[3, 1, 7]),
    "llama-lora-tokens-tied": lora(
        trainable_token_indices=[3, 1, 7],
        base=lambda: llama(tie_word_embeddings=True),
        target_modules=["q_proj"],
    ),
    "llama-dora": lora(use_dora=True),
    "llama-dora-bias_all": lora(
        use_dora=True, bias="all", base=lambda: llama(attention_bias=True), target_modules=["q_proj"]
    ),
    "llama-dora-embedding": lora(use_dora=True, target_modules=["embed_tokens"]),
    "llama-ia3": _peft(IA3Config, llama, target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "llama-vera": _peft(VeraConfig, llama, target_modules=["q_proj", "down_proj"], r=4),
    "llama-ln_tuning": _peft(LNTuningConfig, llama, target_modules=["input_layernorm", "norm"]),
    "llama-tokens": _peft(TrainableTokensConfig, llama, token_indices=[2, 3], target_modules=["embed_tokens"]),
    "llama-prompt": _prompt(PromptTuningConfig),
    "llama-p_tuning": _prompt(PromptEncoderConfig, encoder_hidden_size=5),
    "llama-p_tuning-lstm": _prompt(PromptEncoderConfig, encoder_hidden_size=5, encoder_reparameterization_type="LSTM"),
    "llama-prefix": _prompt(PrefixTuningConfig),
    "llama-prefix-projection": _prompt(PrefixTuningConfig, encoder_hidden_size=5, prefix_projection=True),
    "llama-norms": only(llama, "norm"),
    "llama-bitfit": only(lambda: llama(attention_bias=True, mlp_bias=True), "bias"),
    "llama-full": Case(llama),
    "llama-full-tied": Case(lambda: llama(tie_word_embeddings=True)),
    "gemma-lora-embedding": lora(base=gemma, target_modules=["embed_tokens"]),
    "gemma-dora-embedding": lora(base=gemma, use_dora=True, target_modules=["embed_tokens"]),
    "gpt2-lora": lora(gpt2, fan_in_fan_out=True),
    "gpt2-lora-embedding": lora(gpt2, target_modules=["wte"]),
    "gpt2-lora-positions": lora(gpt2, target_modules=["wpe"]),
    "gpt2-lora-tokens": lora(gpt2, trainable_token_indices=[3, 1]),
    "gpt2-dora": lora(gpt2, use_dora=True, fan_in_fan_out=True),
    "gpt2-dora-bias_lora_only": lora(gpt2, use_dora=True, bias="lora_only", fan_in_fan_out=True),
    "gpt2-ia3": _peft(
        IA3Config,
        gpt2,
        target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    ),
    "gpt2-prompt": _prompt(PromptTuningConfig, gpt2),
    "gpt2-p_tuning": _prompt(PromptEncoderConfig, gpt2, encoder_hidden_size=5),
    "gpt2-prefix-projection": _prompt(PrefixTuningConfig, gpt2, encoder_hidden_size=5, prefix_projection=True),
    "gpt2-bitfit": only(gpt2, "bias"),
    "gpt2-norms": only(gpt2, "ln_"),
    "gpt2-full": Case(lambda: gpt2(tie_word_embeddings=False)),
    "gpt2-full-tied": Case(gpt2),
    "llama-classifier-lora": lora(_of(llama, LlamaForSequenceClassification), "SEQ_CLS", target_modules=["q_proj"]),
    "llama-classifier-prompt": _prompt(PromptTuningConfig, _of(llama, LlamaForSequenceClassification), "SEQ_CLS"),
    "gpt2-classifier-dora": lora(
        _of(gpt2, GPT2ForSequenceClassification),
        "SEQ_CLS",
        target_modules=["c_attn"],
        use_dora=True,
        fan_in_fan_out=True,
    ),
    "bert-classifier-lora": lora(bert, "SEQ_CLS"),
    "bert-classifier-dora": lora(bert, "SEQ_CLS", use_dora=True),
    "bert-classifier-lora-embedding": lora(bert, "SEQ_CLS", target_modules=["word_embeddings", "position_embeddings"]),
    "bert-classifier-ia3": _peft(
        IA3Config, bert, "SEQ_CLS", target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
    ),
    "bert-classifier-prompt": _prompt(PromptTuningConfig, bert, "SEQ_CLS"),
    "bert-classifier-p_tuning": _prompt(PromptEncoderConfig, bert, "SEQ_CLS", encoder_hidden_size=5),
    "bert-classifier-bitfit": only(bert, "bias"),
    "bert-classifier-head": only(bert, "classifier"),
    "bert-tokens-lora": lora(_of(bert, BertForTokenClassification), "TOKEN_CLS", target_modules=["query"]),
    "bert-tokens-prompt": _prompt(PromptTuningConfig, _of(bert, BertForTokenClassification), "TOKEN_CLS"),
}


def base_of(name: str) -> nn.Module:
    """The case's base model in float64; norms and biases are moved away from where they begin (ones and zeros)."""
    torch.manual_seed(7)
    model = CASES[name].base().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def make(name: str) -> nn.Module:
    """The model of a case, ready to be trained; what an adapter adds is moved away from where it begins, too."""
    model, (_, config, parts) = base_of(name), CASES[name]
    if config is None:
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in key for part in parts))
        return model.train()
    model = get_peft_model(model, config()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.train()


def ids() -> Tensor:
    """Token ids; each sample has token 3, which is one of those that some cases train, once or twice."""
    torch.manual_seed(1)
    rows = torch.randint(1, V, (B, T))
    rows[:, 1] = rows[2, 4] = 3
    return rows


def losses_of(model: nn.Module, rows: Tensor) -> Tensor:
    """One loss a sample, by the shape of the logits."""
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    logits = model(**inputs).logits
    if logits.dim() == 2:
        return classification_losses(logits, rows[:, 0] % K)
    if logits.shape[-1] == K:
        return torch.stack([nn.functional.cross_entropy(x[-T:], y % K) for x, y in zip(logits, rows, strict=True)])
    return causal_lm_losses(logits, rows)

"""Everything that can be trained privately with PEFT, each against a loop over single samples; the rest is refused."""

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn
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

from privkt import kernels
from privkt.dpsgd import RefusedTraining, causal_lm_losses, classification_losses
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.export import payload
from privkt.dpsgd.peft_types import public_settings
from privkt.dpsgd.plan import make_plan
from privkt.privacy import Budget

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


def llama(kind=LlamaForCausalLM, **changes):
    return kind(LlamaConfig(**{**_DECODER, "tie_word_embeddings": False, **changes}))


def gpt2(kind=GPT2LMHeadModel, **changes):
    return kind(GPT2Config(**{**_GPT2, **_STILL, **changes}))


def gemma():
    return GemmaForCausalLM(GemmaConfig(**_DECODER, head_dim=4))


def bert(kind=BertForSequenceClassification):
    return kind(BertConfig(**_BERT))


class Case(NamedTuple):
    """A base model, and what makes it trainable: an adapter's config, or names of parts of the base model."""

    base: Callable[[], nn.Module]
    config: Callable[[], PeftConfig] | None = None
    parts: tuple[str, ...] = ("",)


def _peft(kind, base, task="CAUSAL_LM", **settings):
    return Case(base, lambda: kind(task_type=task, **settings))


def lora(base=llama, task="CAUSAL_LM", **settings):
    names = {llama: ["q_proj", "down_proj"], gpt2: ["c_attn", "c_proj"], bert: ["query", "value"]}
    return _peft(LoraConfig, base, task, **{"r": 2, "target_modules": names.get(base), **settings})


def only(base, *parts):
    return Case(base, parts=parts)


def _prompt(kind, base=llama, task="CAUSAL_LM", **settings):
    return _peft(kind, base, task, num_virtual_tokens=3, **settings)


def _of(base, kind):
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


def base_of(name):
    """The case's base model in float64; norms and biases are moved away from where they begin (ones and zeros)."""
    torch.manual_seed(7)
    model = CASES[name].base().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def make(name):
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


def ids():
    """Token ids; each sample has token 3, which is one of those that some cases train, once or twice."""
    torch.manual_seed(1)
    rows = torch.randint(1, V, (B, T))
    rows[:, 1] = rows[2, 4] = 3
    return rows


def losses_of(model, rows):
    """One loss a sample, by the shape of the logits."""
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    logits = model(**inputs).logits
    if logits.dim() == 2:
        return classification_losses(logits, rows[:, 0] % K)
    if logits.shape[-1] == K:
        return torch.stack([nn.functional.cross_entropy(x[-T:], y % K) for x, y in zip(logits, rows, strict=True)])
    return causal_lm_losses(logits, rows)


def loop(model, rows):
    """[B, P] float64: ordinary autograd, one sample after the other."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for row in rows:
        grads = torch.autograd.grad(losses_of(model, row[None]).sum(), parameters, allow_unused=True)
        pairs = zip(grads, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    return torch.stack(found)


def engine_rows(model, rows, mask=None):
    engine = Engine(model)
    with engine.microbatch(len(rows)):
        return engine.rows(losses_of(model, rows), torch.tensor(mask or [True] * len(rows))).clone()


@pytest.mark.parametrize("name", CASES)
def test_rows_match_the_per_sample_loop(name):
    model, rows = make(name), ids()
    expected = loop(model, rows)
    got = engine_rows(model, rows).double()
    assert float(expected.norm(dim=1).min()) > 0
    for slot in Engine(model).layout.slots:
        part, other = (x[:, slot.start : slot.stop] for x in (got, expected))
        assert float((part - other).norm()) <= 1e-6 * float(other.norm()) + 1e-12, slot.name


@pytest.mark.parametrize("name", CASES)
def test_removing_a_record_moves_the_clipped_sum_by_at_most_the_norm(name):
    model, rows = make(name), ids()

    def total(mask):
        out = torch.zeros(Engine(model).width, dtype=torch.float64)
        kernels.clip_and_sum(engine_rows(model, rows, mask), 1e-7, out=out)  # every gradient is far longer than that
        return out

    whole = total([True] * B)
    moved = [float((whole - total([i != j for i in range(B)])).norm()) / 1e-7 for j in range(B)]
    assert max(moved) <= 1 + 1e-6
    assert min(moved) > 0.99


ADAPTERS = [name for name, case in CASES.items() if case.config is not None]
_ALWAYS = {"base_model_name_or_path", "inference_mode", "prompt_tuning_init"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_release_fits_a_fresh_base_model_and_holds_public_settings_alone(name, tmp_path):
    model, rows = make(name), ids()
    for config in model.peft_config.values():
        config.base_model_name_or_path = config.revision = "/home/somebody/secret"
    plan = make_plan(
        Budget(8.0, 1e-3),
        size=60,
        batch_size=12,
        steps=1,
        max_grad_norm=1.0,
        microbatch_size=4,
        coordinates=Engine(model).width,
        variation_per_coordinate=kernels.gaussian_tv_per_coordinate(),
    )
    files = payload(model, guarantee=plan.guarantee(), plan=plan, model_name="public/model", folder=None).files
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    settings = json.loads(files["adapter_config.json"])
    assert set(settings) <= _ALWAYS | set(public_settings(settings["peft_type"]))
    assert b"secret" not in b"".join(files.values())
    loaded = PeftModel.from_pretrained(base_of(name), tmp_path).double().eval()
    with torch.no_grad():
        # PEFT makes a new soft prompt in float32, so one of float64 is rounded when it is loaded.
        assert torch.allclose(losses_of(loaded, rows), losses_of(model.eval(), rows), rtol=0, atol=1e-6)


def test_an_encoder_whose_dropout_mask_cannot_be_drawn_again_is_refused():
    settings = {"encoder_reparameterization_type": "LSTM", "encoder_num_layers": 2, "encoder_dropout": 0.5}
    config = PromptEncoderConfig("CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=5, **settings)
    model = get_peft_model(llama(), config).double().train()
    with pytest.raises(RefusedTraining, match=r"PromptEncoder\): encoder_dropout must be 0"):
        engine_rows(model, ids())


def test_a_trained_base_weight_that_dora_reads_is_refused():
    model = get_peft_model(llama(), LoraConfig(use_dora=True, lora_dropout=0.5, target_modules=["q_proj"])).train()
    model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.base_layer").requires_grad_(True)
    with pytest.raises(RefusedTraining, match=r"DoraLinearLayer\): the base layer's own weight must be frozen"):
        engine_rows(model, ids())


def test_dora_with_dropout_uses_the_same_mask_as_its_pair():
    config = LoraConfig(use_dora=True, lora_dropout=0.5, r=2, target_modules=["q_proj"], bias="all")
    model = get_peft_model(llama(attention_bias=True).double(), config).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(5)
    expected = torch.autograd.grad(losses_of(model, ids()[:1]).sum(), parameters)
    torch.manual_seed(5)
    got = engine_rows(model, ids()[:1])[0].double()
    whole = torch.cat([part.flatten() for part in expected])
    assert float((got - whole).norm()) <= 1e-6 * float(whole.norm())


def test_a_merged_adapter_is_refused():
    model = make("llama-ia3")
    model.merge_adapter()
    with pytest.raises(RefusedTraining, match="must not be merged into the base layer"):
        engine_rows(model, ids())


def test_noise_leaves_the_column_and_row_of_padding_alone():
    model = get_peft_model(bert(), LoraConfig(r=2, target_modules=["word_embeddings"], task_type="SEQ_CLS"))
    layout = Engine(model).layout
    ((slot, place),) = layout.still
    assert slot.name.endswith("lora_embedding_A.default")
    assert slot.parameter[place].shape == (2,)
    rows = ids()
    rows[:, 4:] = 0  # padding_idx of BERT's words
    row = engine_rows(model, rows)[:, slot.start : slot.stop].view(B, *slot.parameter.shape)
    assert not row[:, :, 0].any()
    assert row[:, :, 3].any()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llama-dora", "llama-ia3", "llama-vera", "gpt2-dora-bias_lora_only"])
def test_gradient_checkpointing_gives_the_same_rows(name, reentrant):
    model, rows = make(name), ids()
    expected = engine_rows(model, rows)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert torch.allclose(engine_rows(model, rows), expected, rtol=1e-6, atol=1e-9)

"""Which models' losses are computed from their hidden states, and that a change of the logits is noticed."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from privkt.dpsgd.heads import head_path, hidden_states

TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class Changed(LlamaForCausalLM):
    """A family that nobody here has heard of."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = self.change(output.logits)
        return output


def frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False).eval()


def ids(n: int = 2) -> torch.Tensor:
    return torch.arange(n * 5).view(n, 5)


@pytest.mark.parametrize("name", ["llama-lora", "llama-lora-dropout", "llama-prompt", "llama-prefix", "gpt2-lora"])
def test_a_frozen_linear_head_is_chunked(dp, name):
    path = head_path(dp.make(name))
    assert path.chunked
    assert path.reason == "its head is a plain, frozen Linear"
    assert (path.softcap, path.scale) == (None, None)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2-tied", "llama-lora-head"])
def test_a_trained_linear_head_is_chunked_too(dp, name):
    model = dp.make(name)
    path = head_path(model)
    assert (path.chunked, path.trained) == (True, True)
    assert path.reason == "its head is a plain, trained Linear"
    assert path.linear.weight.requires_grad


def test_a_copy_of_the_head_counts_while_its_adapter_is_on(dp):
    model = dp.make("llama-lora-head")
    with model.disable_adapter():
        assert head_path(model).linear is model.base_model.model.lm_head.original_module
    assert head_path(model).linear is model.base_model.model.lm_head.modules_to_save["default"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lora", "its head is a Linear, not a plain Linear"),
        ("bert", "the model names no output embeddings"),
    ],
)
def test_other_models_say_why_not(dp, name, reason):
    model = dp.make("llama" if name == "lora" else name)
    if name == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    path = head_path(model)
    assert (path.chunked, path.reason, path.linear) == (False, reason, None)


@pytest.mark.parametrize(
    ("model", "softcap", "scale"),
    [
        (lambda: Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=4, final_logit_softcapping=7.0)), 7.0, None),
        (lambda: GraniteForCausalLM(GraniteConfig(**TINY, logits_scaling=8.0)), None, 0.125),
        (lambda: CohereForCausalLM(CohereConfig(**TINY, logit_scale=0.25)), None, 0.25),
    ],
    ids=["gemma2", "granite", "cohere"],
)
def test_known_maps_of_the_logits_are_taken_over(model, softcap, scale):
    path = head_path(frozen(model()))
    assert (path.chunked, path.softcap, path.scale) == (True, softcap, scale)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x * 1.01, "it changes its logits in a way that is not known here"),
        (lambda x: 50 * torch.tanh(x / 50), "it changes its logits in a way that is not known here"),
        (lambda x: x + torch.eye(61)[3], "it changes its logits in a way that is not known here"),
        (lambda x: x[..., :60], "its logits are not its head's output, one row a position"),
        (lambda x: x[:, -1:], "its logits are not its head's output, one row a position"),
    ],
)
def test_an_unknown_change_of_the_logits_is_noticed(change, reason):
    model = frozen(Changed(LlamaConfig(**TINY)))
    model.change = change
    assert head_path(model).reason == reason


def test_a_model_that_needs_more_than_tokens_is_not_run_further():
    class Demanding(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask, topic, use_cache):
            raise AssertionError

    path = head_path(frozen(Demanding(LlamaConfig(**TINY))))
    assert path.reason == "its forward does not run on made-up tokens alone (TypeError)"


def test_a_hooked_head_and_a_compiled_model_keep_their_logits():
    model = frozen(LlamaForCausalLM(LlamaConfig(**TINY)))
    handle = model.lm_head.register_forward_hook(lambda *_: None)
    assert head_path(model).reason == "something else is hooked to its head"
    handle.remove()
    assert head_path(model).chunked
    model.compile()
    assert head_path(model).reason == "the model is compiled, so its head's input cannot be taken"


def test_a_head_unfrozen_later_is_noticed():
    model = frozen(LlamaForCausalLM(LlamaConfig(**TINY)))
    assert head_path(model).chunked
    model.lm_head.weight.requires_grad_()
    assert head_path(model).trained


def test_trying_out_is_done_once_and_disturbs_nothing(dp):
    model = dp.make("llama-lora-dropout")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = torch.random.get_rng_state()
    head_path(model)
    head_path(model)
    assert len(calls) == 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert not model.base_model.model.lm_head._forward_pre_hooks


def test_hidden_states_are_the_heads_input(dp):
    model = dp.make("llama-prompt").eval()
    inputs = {"input_ids": ids(), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    linear = head_path(model).linear
    hidden = hidden_states(model, linear, inputs)
    assert hidden.shape == (2, 3 + 5, 16)
    torch.testing.assert_close(linear(hidden), model(**inputs).logits)

"""Adapters and soft prompts: PEFT reads what we write, and computes what we compute."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load, save
from transformers import AutoModelForCausalLM

from privkt.contracts import Adapter, BackendError, Example, Recipe, Sampling, SoftPrompt
from privkt.privacy import RefusedInput

RECIPE = Recipe(epochs=3, batch_size=4, max_length=32, learning_rate=3e-2, lora={"rank": 4})
EXAMPLES = [Example("Say:", f" {'ab' * (1 + i % 3)} and so on") for i in range(8)]


def folder_of(message, place):
    place.mkdir()
    for name, content in message.files.items():
        (place / name).write_bytes(content)
    return place


@pytest.fixture(scope="module")
def adapter(tiny_llama, tmp_path_factory):
    from privkt_transformers.backend import TransformersBackend

    from privkt.contracts import BackendContext

    backend = TransformersBackend({"model": str(tiny_llama), "dtype": "float32"}, BackendContext())
    return backend.train(EXAMPLES, RECIPE, folder=tmp_path_factory.mktemp("trained"))


def test_an_adapter_is_three_files_without_a_path(adapter, tiny_llama):
    assert set(adapter.files) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    for content in adapter.files.values():
        assert str(tiny_llama.parent).encode() not in content
    assert json.loads(adapter.files["adapter_config.json"])["base_model_name_or_path"] == "tiny-llama"


def test_peft_reads_the_adapter_and_scores_the_same(adapter, tiny_llama, llama, tmp_path):
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), folder_of(adapter, tmp_path / "a")
    ).eval()
    backend = llama()
    ours = backend.with_weights(adapter)
    ids = torch.tensor([backend.loaded.tokenizer("Say: abab")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(ours.loaded.network(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(backend.loaded.network(ids).logits, theirs(ids).logits, atol=1e-2)


def test_an_adapter_shares_the_base_weights(adapter, llama):
    backend = llama()
    ours = backend.with_weights(adapter)
    base = {p.data_ptr() for p in backend.loaded.network.parameters()}
    own = [p for p in ours.loaded.network.parameters() if p.data_ptr() not in base]
    assert sum(p.numel() for p in own) == 3 * 2 * 4 * (32 + 32) - 3 * 4 * 16  # A and B of q and of the narrower v
    assert not any("lora" in name for name, _ in backend.loaded.network.named_modules())


def test_an_adapter_of_another_model_is_refused(adapter, bert):
    with pytest.raises(BackendError, match="must fit"):
        bert().with_weights(adapter).embed(["a"])
    with pytest.raises(BackendError, match=r"adapter_config\.json"):
        bert().with_weights(Adapter({})).embed(["a"])


def test_an_adapter_with_other_tensors_than_its_settings_say_is_refused(adapter, llama):
    def changed(change):
        tensors = load(adapter.files["adapter_model.safetensors"])
        change(tensors)
        return Adapter({**adapter.files, "adapter_model.safetensors": save(tensors)})

    for wrong in (
        changed(lambda tensors: tensors.pop(min(tensors))),
        changed(lambda tensors: tensors.update({"base_model.model.layer.7.lora_A.weight": torch.zeros(4, 32)})),
    ):
        with pytest.raises(BackendError, match="they differ in 1 tensors, one is 'base_model"):
            llama().with_weights(wrong).embed(["a"])


@pytest.mark.parametrize("kept", ["auto", False])
def test_adapters_of_tied_embeddings_are_written_and_read(llama, tiny_llama, tmp_path, kept):
    """Targeted embeddings are stored beside their adapters by PEFT, tied ones once more; not every writer does."""
    from privkt_transformers.adapters import adapter_files

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    base.tie_weights()
    base.lm_head.weight = base.model.embed_tokens.weight
    base.config.tie_word_embeddings = True
    wrapped = get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "embed_tokens", "lm_head"])
    )
    for name, parameter in wrapped.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if kept == "auto":
        found = adapter_files(wrapped, "tiny")
    else:
        wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
        found = Adapter({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    backend = llama()
    before = backend.loaded.network.get_input_embeddings().weight.clone()
    ours = backend.with_weights(found)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        changed = ours.loaded.network(ids).logits - backend.loaded.network(ids).logits
    assert changed.abs().max() > 1e-3
    assert torch.equal(backend.loaded.network.get_input_embeddings().weight, before)


def test_weights_are_never_in_the_systems_temporary_folder(adapter, llama, tmp_path, monkeypatch):
    """They may be those of a training without privacy, and a killed process leaves what lies there."""
    seen = []

    class Watched(tempfile.TemporaryDirectory):
        def cleanup(self):
            seen.extend(path.name for path in Path(self.name).rglob("*"))
            super().cleanup()

        def __exit__(self, *_):
            self.cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Watched)
    backend = llama()
    trained = backend.train(EXAMPLES, RECIPE, folder=tmp_path / "trained")
    backend.with_weights(trained).embed(["a"])
    assert trained.files.keys() == adapter.files.keys()
    assert set(seen) <= {"adapter_config.json"}


def test_only_weights_are_put_in_place(llama):
    with pytest.raises(RefusedInput, match="the payload of a Release"):
        llama().with_weights("a path")


@pytest.fixture
def prompt_tuned(tiny_llama):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config).eval()


def test_a_soft_prompt_scores_and_writes_as_in_peft(prompt_tuned, llama, tmp_path):
    prompt_tuned.save_pretrained(tmp_path / "p")
    message = SoftPrompt({f.name: f.read_bytes() for f in (tmp_path / "p").iterdir() if f.is_file()})
    backend = llama()
    ours = backend.with_weights(message)
    prompts, ends = ["Say:", "A rather longer prompt than that"], [" ab", " no"]
    for score, prompt, end in zip(ours.score(prompts, ends), prompts, ends, strict=True):
        start, rest = (backend.loaded.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, end))
        with torch.no_grad():
            logs = prompt_tuned(input_ids=torch.tensor([start + rest])).logits[0].log_softmax(-1)
        expected = sum(logs[5 + len(start) + k - 1, t].item() for k, t in enumerate(rest))
        assert score.logprob == pytest.approx(expected, abs=1e-4)
    greedy = Sampling(max_new_tokens=8, temperature=0)
    together = ours.generate(prompts, greedy)
    assert together == [ours.generate([p], greedy)[0] for p in prompts]
    assert together != backend.generate(prompts, greedy)
    alone = np.concatenate([ours.embed([p]) for p in prompts])
    np.testing.assert_allclose(ours.embed(prompts), alone, atol=1e-5)


def test_a_soft_prompt_of_another_width_is_refused(llama):
    from safetensors.torch import save

    wrong = SoftPrompt({"adapter_model.safetensors": save({"prompt_embeddings": torch.zeros(4, 7)})})
    with pytest.raises(BackendError, match="rows of 32 numbers"):
        llama().with_weights(wrong).generate(["a"], Sampling(max_new_tokens=1))

"""What leaves: trained weights, whitelisted settings, a card; nothing of the machine or the run."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load

from privkt.contracts.messages import Adapter, Model, SoftPrompt
from privkt.dpsgd import RefusedTraining
from privkt.privacy import Guarantee
from privkt.runtime.adapters import decode_adapter, encode_adapter

PATH = "/home/somebody/secret-folder/model"


def _release(dp, model, folder=None, **changes):
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = PATH
        config.revision = "secret-revision"
    model.config._name_or_path = PATH
    training = dp.training(model, steps=1, **changes)
    dp.run(training)
    return training.finish(folder)


def _write(files, folder):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["llama-lora", "llama-rslora", "llama-lora-head", "llama-prompt"])
def test_the_files_load_with_peft_and_compute_the_same(dp, tmp_path, name):
    model = dp.make(name)
    release = _release(dp, model)
    assert isinstance(release.payload, SoftPrompt if "prompt" in name else Adapter)
    assert sorted(release.payload.files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    loaded = PeftModel.from_pretrained(dp.make("llama"), _write(release.payload.files, tmp_path / "a"))
    base = loaded.get_base_model().state_dict()
    mine = {key: value for key, value in model.get_base_model().state_dict().items() if key in base}
    loaded.get_base_model().load_state_dict(mine, strict=False)  # `make` perturbs the base model of each
    batch = dp.collate(dp.records(2))
    with torch.no_grad():
        assert torch.allclose(dp.losses_of(loaded.eval(), batch), dp.losses_of(model.eval(), batch), atol=1e-6)


@pytest.mark.parametrize("name", ["llama-lora", "llama-prompt"])
def test_no_path_revision_or_metric_is_in_any_file(dp, name):
    files = _release(dp, dp.make(name), model_name="public/model").payload.files
    for content in files.values():
        assert b"secret" not in content
        assert b"loss" not in content.lower()
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "public/model"
    assert b"public/model" in files["README.md"]


def test_an_undeclared_base_model_has_no_name(dp):
    files = _release(dp, dp.make("llama-lora")).payload.files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "undeclared-base-model"


def test_a_prompt_keeps_the_text_it_began_with(dp):
    model = dp.make("llama-prompt")
    model.peft_config["default"].prompt_tuning_init_text = "secret words"
    model.peft_config["default"].tokenizer_name_or_path = PATH
    files = _release(dp, model).payload.files
    assert b"secret" not in files["adapter_config.json"]
    assert json.loads(files["adapter_config.json"])["prompt_tuning_init"] == "RANDOM"


def test_only_trained_weights_leave(dp):
    model = dp.make("llama-lora-head")
    tensors = load(_release(dp, model).payload.files["adapter_model.safetensors"])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(tensor.numel() for tensor in tensors.values()) == trained
    assert all("lora_" in name or "lm_head" in name for name in tensors)


def test_the_card_states_the_plan_and_both_relations(dp):
    training = dp.training(steps=2)
    dp.run(training)
    card = training.finish().payload.files["README.md"].decode()
    plan = training.plan
    assert str(plan.guarantee()) in card
    for line in ("| steps | 2 |", "| sampling_rate | 0.2 |", "| unit, relation | record, zero-out |"):
        assert line in card
    assert "epsilon if a record is replaced" in card
    assert f"| noise_multiplier | {plan.noise_multiplier:.6g} |" in card


def test_a_run_without_a_guarantee_says_so_on_its_card(dp):
    training = dp.training(steps=1, test_keys=dp.keys())
    dp.run(training)
    card = training.finish().payload.files["README.md"].decode()
    assert "no privacy guarantee" in card
    assert "| epsilon | inf |" in card


def test_the_same_weights_give_the_same_bytes(dp):
    files = [_release(dp, dp.make("llama-lora"), test_keys=dp.keys()).payload.files for _ in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["llama-lora", "llama-rslora", "llama-prompt"])
def test_the_wire_takes_what_a_training_gives(dp, name):
    payload = _release(dp, dp.make(name)).payload
    back = decode_adapter(encode_adapter(payload))
    assert type(back) is type(payload)
    sent, came = (load(files.files["adapter_model.safetensors"]) for files in (payload, back))
    assert all(torch.equal(sent[name], came[name]) for name in sent)


def test_a_whole_model_is_written_to_a_folder(dp, tmp_path):
    model = dp.make("gpt2-tied")
    release = _release(dp, model, tmp_path / "out")
    assert release.payload == Model(tmp_path / "out")
    loaded = type(model).from_pretrained(tmp_path / "out")
    assert torch.equal(dp.weights(loaded), dp.weights(model))
    assert "epsilon" in (tmp_path / "out" / "README.md").read_text()


def test_a_whole_model_without_a_folder_is_refused(dp):
    with pytest.raises(RefusedTraining, match="pass folder="):
        _release(dp, dp.make("gpt2"))


def test_the_guarantee_survives_the_release_json(dp):
    guarantee = _release(dp, dp.make("llama-lora")).guarantee
    assert Guarantee.from_json(guarantee.to_json()) == guarantee

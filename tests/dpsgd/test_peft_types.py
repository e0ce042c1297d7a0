"""What PEFT makes of a model and no rule is exact for is refused by name, before anything is spent."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, PeftType, get_peft_model

from privkt.dpsgd import RefusedTraining, UnknownLayer, peft_types, register_adapter, rules
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.peft_types import public_settings

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["LOHA", "OFT", "ADALORA", "MULTITASK_PROMPT_TUNING", "CPT", "ADAPTION_PROMPT"])
def test_other_methods_are_refused_by_name_with_what_to_do(dp, kind):
    model = dp.make("llama-lora")
    model.peft_config["default"].peft_type = PeftType(kind)
    with pytest.raises(UnknownLayer, match=rf"got {kind}; .*choose [A-Z_, ]*(LORA|TUNING).*register_adapter"):
        Engine(model)


def test_a_real_loha_is_refused_and_so_is_every_layer_of_it_once_the_method_is_registered(dp, monkeypatch):
    model = get_peft_model(dp.make("llama"), LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    with pytest.raises(UnknownLayer, match="got LOHA"):
        Engine(model)
    monkeypatch.setattr(peft_types, "_SETTINGS", dict(peft_types._SETTINGS))
    register_adapter("LOHA", ("r", "alpha", "target_modules"))
    assert "alpha" in public_settings("LOHA")
    with pytest.raises(UnknownLayer, match=r"q_proj.*hada_w1_a.*register_rule"):
        Engine(model)


@pytest.mark.parametrize("name", ["alora_invocation_tokens", "target_parameters", "layer_replication", "kasa_config"])
def test_other_variants_of_lora_are_refused_by_name(dp, name):
    model = dp.make("llama-lora")
    setattr(model.peft_config["default"], name, [1])
    with pytest.raises(UnknownLayer, match=f"use_dora and lora_bias have per-sample rules, got {name}; leave it out"):
        Engine(model)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "eva", "corda", "loftq", "lora_ga"])
def test_weights_that_read_data_or_change_the_base_model_are_refused(dp, start):
    model = dp.make("llama-lora")
    model.peft_config["default"].init_lora_weights = start
    with pytest.raises(RefusedTraining, match=f"must begin with weights.*init_lora_weights='{start}'"):
        Engine(model)
    model.peft_config["default"].init_lora_weights = "gaussian"
    assert Engine(model).width > 0


def test_the_page_names_every_method_that_is_known_and_every_one_with_advice():
    for kind in (*peft_types._SETTINGS, *peft_types._INSTEAD):
        assert f"`{kind}`" in PAGE, kind
    for start in peft_types._INITIALISED:
        assert f"`{start}`" in PAGE, start


def test_the_page_example_of_a_rule_is_exact(monkeypatch):
    monkeypatch.setattr(rules, "_RULES", list(rules._RULES))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    model, x = names["Gate"](4), torch.randn(3, 5, 4)
    with torch.no_grad():
        model.factor.add_(torch.randn(4))
    engine = Engine(model)
    with engine.microbatch(3):
        got = engine.rows(model(x).pow(2).sum((1, 2)), torch.ones(3, dtype=torch.bool)).clone()
    for one, row in zip(x, got, strict=True):
        (expected,) = torch.autograd.grad(model(one[None]).pow(2).sum(), [model.factor])
        assert torch.allclose(row, expected, rtol=1e-5)

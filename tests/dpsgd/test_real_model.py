"""One private step of a real model: its rehearsal passes, its probe holds, its weights move."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

SENTENCES = (
    "The library opens at nine on weekdays.",
    "A new bridge was built across the river last spring.",
    "Tea is served in the garden.",
    "The committee met twice and then adjourned.",
)


@pytest.fixture(scope="module")
def adapted(smollm2):
    """SmolLM2 with a rank 4 adapter on every linear layer, and the sentences as token ids."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    torch.manual_seed(0)
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = get_peft_model(model, settings).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model, [tokenizer(text)["input_ids"][:12] for text in SENTENCES]


def test_rows_of_a_real_model_match_the_loop(dp, adapted):
    """float32 through 30 layers: batched and single forwards round differently by about 1e-6."""
    model, rows = adapted
    expected, got = dp.loop(model, rows[:2]), dp.engine_rows(model, rows[:2])
    assert float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-5


def test_a_real_model_takes_a_private_step_after_its_rehearsal(dp, adapted, ledger):
    from privkt.privacy import Budget

    model, rows = adapted
    before = dp.weights(model)
    training = dp.training(
        model, dataset=rows * 15, steps=1, batch_size=2, verify=True, budget=Budget(8.0, 1e-3, ledger=ledger)
    )
    dp.run(training)
    release = training.finish()
    assert release.charge == ledger.charges()[0].id
    assert not torch.equal(dp.weights(model), before)
    assert len(release.payload.files["adapter_model.safetensors"]) > 4 * training.plan.coordinates

"""Everything that can be trained privately, each model against a loop over single samples."""

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptEncoderConfig, get_peft_model
from torch import nn
from trainable_models import CASES, B, base_of, bert, ids, llama, losses_of, make

from privkt import kernels
from privkt.dpsgd import RefusedTraining
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.peft_types import public_settings
from privkt.runtime.adapters import decode_adapter, encode_adapter


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


NORM = 1e-7  # every gradient is far longer


def clipped_sum(model, rows, mask, force):
    """The sum of clipped gradients, with stored rows ("rows") or with as few of them as can be ("kept")."""
    engine, kept = Engine(model), torch.tensor(mask)
    total = torch.zeros(engine.width, dtype=torch.float64)
    with engine.microbatch(len(rows)):
        gradients = engine.backward(losses_of(model, rows), kept, force=force)
    factors = (1 - 2**-22) * NORM / gradients.sqnorms().sqrt()
    gradients.add_clipped(total, torch.where(kept[:, None], factors, 0).float())
    return total


@pytest.mark.parametrize("name", CASES)
def test_removing_a_record_moves_the_clipped_sum_by_at_most_the_norm(name):
    model, rows = make(name), ids()
    form = "rows" if name.endswith("full-tied") else "kept"  # a tied head without rows: test_gradients.py
    whole = clipped_sum(model, rows, [True] * B, form)
    assert float((whole - clipped_sum(model, rows, [True] * B, "rows")).norm()) <= 1e-5 * NORM
    without = [clipped_sum(model, rows, [i != j for i in range(B)], form) for j in range(B)]
    moved = [float((whole - rest).norm()) / NORM for rest in without]
    assert max(moved) <= 1
    assert min(moved) > 0.99


PERSONS = ("llama-dora", "llama-ia3", "llama-vera", "llama-lora-tokens-tied", "gpt2-lora-positions", "llama-prompt")
ENCODED = ("llama-p_tuning", "llama-p_tuning-lstm", "llama-prefix-projection", "bert-classifier-dora")


@pytest.mark.parametrize("name", PERSONS + ENCODED)
def test_rows_of_a_person_are_the_sums_of_the_records(name):
    model, rows = make(name), ids()
    engine = Engine(model, records_per_unit=2)
    with engine.microbatch(B):
        got = engine.rows(losses_of(model, rows), torch.tensor([True, True, True, False])).double()
    one, two, three, _ = loop(model, rows)
    for row, expected in zip(got, (one + two, three), strict=True):
        assert float((row - expected).norm()) <= 1e-6 * float(expected.norm())


ADAPTERS = [name for name, case in CASES.items() if case.config is not None]
_ALWAYS = {"base_model_name_or_path", "inference_mode", "prompt_tuning_init"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_training_rehearses_moves_everything_and_its_release_fits_a_fresh_base_model(dp, name, tmp_path):
    model, rows = make(name), ids()
    for config in model.peft_config.values():
        config.base_model_name_or_path = config.revision = "/home/somebody/secret"
    trained = {key: (p, p.detach().clone()) for key, p in model.named_parameters() if p.requires_grad}
    training = dp.training(
        model, dataset=[*rows] * 15, collate_fn=torch.stack, steps=1, verify=True, model_name="public/model"
    )
    for batch in training:
        training.step(losses_of(model, batch))
    assert all(not torch.equal(now, before) for now, before in trained.values())
    release = training.finish().payload
    settings = json.loads(release.files["adapter_config.json"])
    assert settings["base_model_name_or_path"] == "public/model"
    assert set(settings) <= _ALWAYS | set(public_settings(settings["peft_type"]))
    assert b"secret" not in b"".join(release.files.values())
    crossed = decode_adapter(encode_adapter(release))
    assert type(crossed) is type(release)
    for file, content in crossed.files.items():
        (tmp_path / file).write_bytes(content)
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


class Convolving(nn.Module):
    """A convolution, as adapters of vision and speech encoders meet it."""

    def __init__(self, kind):
        super().__init__()
        self.inner = kind(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (nn.Conv2d, LoraConfig(r=2, target_modules=["inner"])),
        (nn.Conv1d, LoraConfig(r=2, use_dora=True, target_modules=["inner"])),
        (nn.Conv2d, LoraConfig(r=2, use_dora=True, target_modules=["inner"])),
        (nn.Conv2d, LoraConfig(r=2, use_dora=True, target_modules=["inner"], lora_dropout=0.5)),
        (nn.Conv2d, IA3Config(target_modules=["inner"], feedforward_modules=[])),
        (nn.Conv2d, IA3Config(target_modules=["inner"], feedforward_modules=["inner"])),
    ],
)
def test_adapters_of_convolutions(kind, config):
    torch.manual_seed(3)
    model = get_peft_model(Convolving(kind).double(), config).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    parameters = [p for p in model.parameters() if p.requires_grad]
    x = torch.randn(B, 3, 5, *(6,) * (kind is nn.Conv2d), dtype=torch.float64)

    def losses():
        torch.manual_seed(4)  # dropout
        return model(x).pow(2).flatten(1).sum(1)

    engine = Engine(model)
    with engine.microbatch(B):
        got = engine.rows(losses(), torch.ones(B, dtype=torch.bool)).double()
    for row, loss in zip(got, losses(), strict=True):
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        assert float((row - expected).norm()) <= 1e-6 * float(expected.norm())


@pytest.mark.parametrize("name", ["llama-dora", "llama-ia3", "gpt2-lora-embedding", "llama-p_tuning-lstm"])
def test_bfloat16_models_have_float32_rows_that_are_clipped_to_the_norm(name):
    model, rows = make(name).bfloat16(), ids()
    got = engine_rows(model, rows)
    assert got.dtype == torch.float32
    for row in got:
        total = torch.zeros(len(row), dtype=torch.float64)
        kernels.clip_and_sum(row[None].clone(), 1e-5, out=total)
        assert 0.99e-5 < float(total.norm()) <= 1e-5

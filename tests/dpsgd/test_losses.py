"""One loss a sample, over its own tokens."""

import pytest
import torch
import torch.nn.functional as F

from privkt.dpsgd import causal_lm_losses, classification_losses
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.heads import head_path
from privkt.dpsgd.losses import causal_lm_losses_from_hidden


def _case():
    torch.manual_seed(0)
    return torch.randn(3, 5, 7, dtype=torch.float64), torch.randint(0, 7, (3, 5))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_each_loss_is_that_of_its_sequence_alone(reduction):
    logits, labels = _case()
    labels[1, 3:] = -100
    got = causal_lm_losses(logits, labels, reduction=reduction)
    for i in range(3):
        expected = F.cross_entropy(logits[i, :-1], labels[i, 1:], ignore_index=-100, reduction=reduction)
        assert torch.allclose(got[i], expected)


def test_the_mask_hides_labels():
    logits, labels = _case()
    mask = torch.tensor([[1, 1, 1, 0, 0]] * 3)
    assert torch.allclose(causal_lm_losses(logits, labels, mask), causal_lm_losses(logits[:, :3], labels[:, :3]))


def test_soft_prompt_positions_are_skipped():
    logits, labels = _case()
    longer = torch.cat([torch.randn(3, 2, 7, dtype=torch.float64), logits], 1)
    assert torch.equal(causal_lm_losses(longer, labels), causal_lm_losses(logits, labels))


def test_a_sequence_without_a_counted_token_has_loss_and_gradient_zero():
    logits, labels = _case()
    labels[0] = -100
    losses = causal_lm_losses(logits.requires_grad_(), labels)
    losses[0].backward()
    assert float(losses[0]) == 0
    assert not logits.grad.any()


def test_half_precision_logits_give_float32_losses():
    logits, labels = _case()
    assert causal_lm_losses(logits.bfloat16(), labels).dtype == torch.float32


def test_wrong_shapes_are_refused():
    logits, labels = _case()
    with pytest.raises(ValueError, match=r"logits must be \[B, T, V\]"):
        causal_lm_losses(logits, labels[:2])
    with pytest.raises(ValueError, match=r"logits must be \[B, K\]"):
        classification_losses(logits, labels)


def test_classification_losses():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    assert torch.allclose(classification_losses(logits, labels), -logits.log_softmax(1)[torch.arange(4), labels])


CHUNKED = ["llama-lora", "llama-lora-bias", "llama-prompt", "llama-prefix", "gpt2-lora", "gpt2-prompt"]
TRAINED = ["llama-lora-head", "gpt2-tied"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [*CHUNKED, *TRAINED])
def test_losses_from_hidden_states_are_those_of_the_logits(dp, name, reduction):
    model = dp.make(name, torch.float64).eval()
    assert head_path(model).chunked
    assert head_path(model).trained == (name in TRAINED)
    batch = dp.collate(dp.records(4))
    labels, inputs = batch["labels"], {key: batch[key] for key in ("input_ids", "attention_mask")}
    labels[1, 2] = -100
    labels[2] = -100
    trained = [p for p in model.parameters() if p.requires_grad]
    wanted = causal_lm_losses(model(**inputs).logits, labels, reduction=reduction)
    got = causal_lm_losses_from_hidden(model, inputs, labels, reduction=reduction)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=0)
    for found, exact in zip(torch.autograd.grad(got[0], trained), torch.autograd.grad(wanted[0], trained), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["llama-lora", "llama-prompt"])
def test_rows_of_private_training_are_the_same_from_hidden_states(dp, name):
    model = dp.make(name).eval()
    rows, engine = dp.records(3), Engine(model)
    batch = dp.collate(rows)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with engine.microbatch(3):  # the head is tried out in here, with the microbatch's number of samples
        losses = causal_lm_losses_from_hidden(model, inputs, batch["labels"], batch["attention_mask"])
        found = engine.rows(losses, torch.tensor([True, True, True])).clone()
    assert head_path(model).chunked
    exact = dp.loop(model, rows)
    assert float((found - exact).norm() / exact.norm()) <= 1e-5


def test_labels_among_the_inputs_are_refused(dp):
    batch = dp.collate(dp.records(2))
    with pytest.raises(ValueError, match="inputs must not hold labels"):
        causal_lm_losses_from_hidden(dp.make("llama-lora"), batch, batch["labels"])

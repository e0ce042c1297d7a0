"""The rehearsal before the first step: it finds wrong models and wrong rules, costs nothing and disturbs nothing."""

import pytest
import torch
from torch import nn

from privkt.dpsgd import RefusedTraining, UnknownLayer, VerificationFailed, gathering
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.layers import LinearRule
from privkt.dpsgd.rules import positions
from privkt.dpsgd.verify import Rehearsal
from privkt.privacy import Budget


class Coupled(nn.Module):
    """A causal model whose logits depend on the other samples of the batch."""

    def __init__(self, coupling):
        super().__init__()
        self.words, self.head, self.coupling = nn.Embedding(61, 8), nn.Linear(8, 61), coupling

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        hidden = self.words(input_ids)
        hidden = hidden + self.coupling * hidden.mean((0, 1), keepdim=True)
        return type("Output", (), {"logits": self.head(hidden)})()


def _passes(dp, model, ledger=None, **changes):
    training = dp.training(model, verify=True, budget=Budget(8.0, 1e-3, ledger=ledger), **changes)
    dp.run(training)
    return training


def _autocast(training):
    for batch in training:
        with torch.autocast("cpu", torch.bfloat16):
            losses = training.causal_lm_losses(batch)
        training.step(losses)


@pytest.mark.parametrize("name", ["llama", "llama-lora", "llama-prompt", "gpt2-tied", "gpt2-prompt", "qwen3", "gemma"])
def test_sound_models_pass(dp, name):
    assert _passes(dp, dp.make(name), steps=1).steps_taken == 1


def test_a_bfloat16_model_passes(dp):
    training = _passes(dp, dp.make("llama-lora", torch.bfloat16), steps=1)
    assert training.steps_taken == 1
    assert training.plan.half_precision


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["llama-lora", "llama-prompt"])
def test_autocast_after_the_plan_is_refused_and_nothing_is_spent(dp, ledger, verify, name):
    training = dp.training(dp.make(name), verify=verify, budget=Budget(8.0, 1e-3, ledger=ledger))
    assert training.plan.guarantee().conditional_on == ("N = 60 is public",)
    with pytest.raises(RefusedTraining, match="made for float32 must be computed in float32"):
        _autocast(training)
    assert ledger.charges() == ()


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.get_input_embeddings()])
def test_a_model_cast_after_the_plan_is_refused_and_one_cast_before_may_use_autocast(dp, part):
    model = dp.make("llama-lora")
    training = dp.training(model, verify=False)
    part(model).to(torch.bfloat16)
    with pytest.raises(RefusedTraining, match="cast the model with"):
        dp.run(training)
    training = dp.training(dp.make("llama-lora", torch.bfloat16), steps=1)
    _autocast(training)
    assert training.steps_taken == 1


def test_samples_that_are_coupled_are_found_and_nothing_is_spent(dp, ledger):
    torch.manual_seed(0)
    with pytest.raises(VerificationFailed, match=r"^verify: fail, layer '(words|head)"):
        _passes(dp, Coupled(1.0), ledger)
    assert ledger.charges() == ()
    torch.manual_seed(0)
    assert _passes(dp, Coupled(0.0), ledger).steps_taken == 3  # the twin without the coupling


def test_coupling_in_training_mode_alone_is_found_and_nothing_is_spent(dp, ledger):
    """Rows and sums are right with dropout off, where most of the rehearsal looks."""

    class InTraining(Coupled):
        def forward(self, input_ids, attention_mask=None, use_cache=False):
            hidden = self.words(input_ids)
            if self.training:
                hidden = hidden - self.coupling * hidden.mean((0, 1), keepdim=True)
            return type("Output", (), {"logits": self.head(hidden)})()

    with pytest.raises(VerificationFailed, match=r"^verify: fail, training mode: a record's loss must not depend"):
        _passes(dp, InTraining(0.1).train(), ledger)
    assert not ledger.charges()
    assert _passes(dp, InTraining(0.1).eval(), ledger, steps=1).steps_taken == 1


def test_a_rehearsal_left_in_training_mode_leaves_modes_and_random_numbers_alone(dp):
    model = dp.make("llama-lora-dropout").train()
    modes = {name: module.training for name, module in model.named_modules()}
    training = dp.training(model, verify=True)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    loop = iter(training)
    batch = next(loop)
    while {name: module.training for name, module in model.named_modules()} != modes:
        training.step(training.causal_lm_losses(batch))
        batch = next(loop)
    assert training.steps_taken == 0
    loop.close()
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.rand(4), expected)


def test_coupled_losses_are_found(dp):
    training = dp.training(verify=True)
    with pytest.raises(VerificationFailed):
        dp.run(training, change=lambda losses: losses * losses.sum())


def test_the_mean_clipped_instead_of_each_sample_is_found(dp, monkeypatch):
    def mean_rows(self, module, kept, grad, rows):
        for row in rows.values():
            row += (grad.flatten(0, -2).T @ kept[0].flatten(0, -2)) / grad.shape[0]

    monkeypatch.setattr(LinearRule, "add_rows", mean_rows)
    with pytest.raises(VerificationFailed, match=r"^verify: fail, layer 'base_model.model.*lora_"):
        _passes(dp, dp.make("llama-lora"))


def test_the_message_holds_a_layer_and_no_number(dp):
    torch.manual_seed(0)
    with pytest.raises(VerificationFailed) as error:
        _passes(dp, Coupled(1.0))
    assert not any(character.isdigit() for character in str(error.value))


def test_a_dropped_gradient_is_found(dp, monkeypatch):
    monkeypatch.setattr(LinearRule, "add_rows", lambda *args: None)
    with pytest.raises(VerificationFailed):
        _passes(dp, dp.make("llama-lora"))


def test_it_disturbs_neither_weights_nor_modes_nor_random_numbers_nor_the_step_count(dp):
    model = dp.make("llama-lora")
    model.base_model.model.model.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before, training = dp.weights(model), dp.training(model, verify=True)
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    loop, seen = iter(training), []
    batch = next(loop)
    while batch["input_ids"].shape[0] != 4 or len(seen) < 5:  # 2 rehearsals of 3 + 1 rows, 3 of one record
        seen.append(batch["input_ids"].shape[0])
        training.step(training.causal_lm_losses(batch))
        batch = next(loop)
    assert seen == [4, 4, 1, 1, 1]
    assert torch.equal(dp.weights(model), before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert training.steps_taken == 0
    loop.close()
    assert torch.equal(torch.rand(4), expected)


def test_dropout_is_off_in_the_rehearsal_alone(dp):
    model = dp.make("llama-lora-dropout")
    batch = dp.collate(dp.records(3))
    assert not torch.equal(dp.losses_of(model, batch), dp.losses_of(model, batch))
    assert _passes(dp, model, steps=1).steps_taken == 1


def test_one_record_is_enough_for_a_rehearsal(dp):
    training = dp.training(
        verify=True, dataset=dp.records(1), size=1, batch_size=1, budget=Budget(8.0, 0.1), microbatch_size=1
    )
    dp.run(training)
    assert training.steps_taken == 3


def test_an_unknown_layer_is_named_before_the_rehearsal(dp):
    model = nn.Sequential(nn.ParameterList([nn.Parameter(torch.ones(2))]))
    with pytest.raises(UnknownLayer, match="ParameterList"):
        dp.training(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def _rehearse(dp, model, **settings):
    engine, rows = Engine(model, **settings), dp.records(3)
    rehearsal, seen = Rehearsal(engine, 0.1, 3), []
    for indices, mask in rehearsal.batches():
        seen.append((indices, mask))
        if rehearsal.through_engine:
            engine.open(len(mask))
        rehearsal.take(dp.losses_of(model, dp.collate([rows[i] for i in indices])), torch.tensor(mask))
        engine.close()
    rehearsal.judge()
    return seen


def test_units_of_several_records_are_rehearsed_with_padding_in_them(dp):
    seen = _rehearse(dp, dp.make("llama-lora"), records_per_unit=3)
    unit = [True, True, False]
    assert seen[0] == ([0, 1, 0, 1, 2, 0, 2, 0, 0, 0, 0, 0], unit * 3 + [False] * 3)
    assert seen[1][1] == [False] * 3 + unit * 2 + [False] * 3
    assert seen[2:5] == [([0, 1], [True] * 2), ([1, 2], [True] * 2), ([2, 0], [True] * 2)]


def test_wrong_sums_of_units_are_found(dp, monkeypatch):
    monkeypatch.setattr(gathering, "by_unit", lambda x, records: x[::records].unsqueeze(1))
    with pytest.raises(VerificationFailed, match="its per-sample gradients"):
        _rehearse(dp, dp.make("llama-lora"), records_per_unit=2)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_models_pass(dp, reentrant):
    model = dp.make("llama-lora")
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.disable_input_require_grads()
    assert len(_rehearse(dp, model)) == 7


def test_wrong_products_are_found_where_rows_are_right(dp, monkeypatch):
    def half(self, module, kept, grad):
        return {"weight": (positions(grad) / 2, positions(kept[0]))}

    monkeypatch.setattr(LinearRule, "products", half)
    with pytest.raises(VerificationFailed, match="its per-sample gradients"):
        _rehearse(dp, dp.make("llama-lora"))


def test_norms_below_those_of_the_summed_rows_are_found(dp, monkeypatch):
    def too_small(self, groups=None):
        return sqnorms(self, groups) / 4

    sqnorms = SampleGradients.sqnorms
    monkeypatch.setattr(SampleGradients, "sqnorms", too_small)
    with pytest.raises(VerificationFailed, match="norms: what clipping sees"):
        _rehearse(dp, dp.make("llama-lora"))


def test_a_layer_without_a_rule_is_rehearsed(dp):
    assert len(_rehearse(dp, Coupled(0.0))) == 7
    assert len(_rehearse(dp, Biased())) == 7


class Biased(nn.Module):
    """A causal model with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(61, 8), nn.Linear(8, 61, bias=False)
        self.gain = Gain()

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        return type("Output", (), {"logits": self.head(self.gain(self.words(input_ids)))})()


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.tanh(x * self.gain)

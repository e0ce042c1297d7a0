"""Rows are the per-sample gradients, whatever the model; what has no exact rule is refused by name."""

import copy

import pytest
import torch
from torch import nn

from privkt.dpsgd import RefusedTraining, UnknownLayer
from privkt.dpsgd.engine import Engine

CAUSAL = ("llama", "llama-tied", "llama-biased", "llama-lora", "llama-rslora", "llama-lora-head", "llama-lora-bias")
OTHERS = ("llama-prompt", "llama-prefix", "gpt2", "gpt2-tied", "gpt2-lora", "gpt2-prompt", "qwen3", "gemma", "bert")


@pytest.mark.parametrize("name", CAUSAL + OTHERS)
def test_rows_match_the_per_sample_loop(dp, name):
    model, rows = dp.make(name, torch.float64), dp.records(5)
    expected = dp.loop(model, rows)
    got = dp.engine_rows(model, rows)
    assert got.dtype == torch.float32
    error = (got - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(expected.norm(dim=1).min()) > 0
    assert float(error.max()) <= 1e-6


def test_every_layer_matches_the_loop_on_its_own(dp):
    model, rows = dp.make("llama-lora-bias", torch.float64), dp.records(4)
    expected, got = dp.loop(model, rows), dp.engine_rows(model, rows)
    for slot in Engine(model).layout.slots:
        part, other = got[:, slot.start : slot.stop], expected[:, slot.start : slot.stop]
        assert float((part - other).norm()) <= 1e-6 * float(other.norm()) + 1e-12, slot.name


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_rows(dp, reentrant):
    model, rows = dp.make("llama", torch.float64), dp.records(4)
    expected = dp.engine_rows(model, rows)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert torch.allclose(dp.engine_rows(model, rows), expected, rtol=1e-6, atol=1e-9)


def test_gradient_checkpointing_of_an_adapter(dp):
    model, rows = dp.make("llama-lora", torch.float64), dp.records(4)
    expected = dp.engine_rows(model, rows)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.allclose(dp.engine_rows(model, rows), expected, rtol=1e-6, atol=1e-9)


def test_masked_rows_are_zero_and_change_no_other_row(dp):
    model, rows = dp.make("llama-lora", torch.float64), dp.records(4)
    whole = dp.engine_rows(model, rows)
    some = dp.engine_rows(model, rows, [True, False, True, False])
    assert not some[[1, 3]].any()
    assert torch.allclose(some[[0, 2]], whole[[0, 2]], rtol=1e-6, atol=1e-9)


def test_bfloat16_weights_give_float32_rows():
    torch.manual_seed(2)
    model, x = nn.Linear(6, 5).bfloat16(), torch.randn(3, 7, 6).bfloat16()
    factor = torch.randn(3, 7, 5).bfloat16()
    engine = Engine(model)
    with engine.microbatch(3):
        got = engine.rows((model(x).float() * factor).sum((1, 2)), torch.ones(3, dtype=torch.bool))
    weight = torch.einsum("btp,btd->bpd", factor.double(), x.double()).flatten(1)
    expected = torch.cat([weight, factor.double().sum(1)], 1)
    assert got.dtype == torch.float32
    assert float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()) <= 1e-6


def test_a_row_depends_on_its_sample_and_the_padded_length_alone(dp):
    model, rows = dp.make("llama-lora"), [row[:4] for row in dp.records(8)]
    whole = dp.engine_rows(model, rows)
    other_company = dp.engine_rows(model, rows[:4] + rows[:4])
    assert torch.allclose(other_company[:4], whole[:4], rtol=0, atol=2e-7 * float(whole.norm(dim=1).max()))
    longer = dp.engine_rows(model, [*rows[:7], dp.records(5)[4]])
    error = (longer[:7] - whole[:7]).norm(dim=1) / whole[:7].norm(dim=1)
    assert float(error.max()) < 1e-5


def test_a_layer_called_twice_adds_both_uses(dp):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x):
            return self.inner(torch.tanh(self.inner(x)))

    torch.manual_seed(1)
    model, x = Twice().double(), torch.randn(5, 3, 6, dtype=torch.float64)
    engine = Engine(model)
    with engine.microbatch(5):
        got = engine.rows(model(x).pow(2).sum((1, 2)), torch.ones(5, dtype=torch.bool)).clone()
    for i in range(5):
        grads = torch.autograd.grad(model(x[i : i + 1]).pow(2).sum(), list(model.parameters()))
        expected = torch.cat([g.flatten() for g in grads])
        assert float((got[i] - expected).norm() / expected.norm()) <= 1e-6


def test_outside_a_microbatch_the_model_is_untouched(dp):
    model, rows = dp.make("llama-lora"), dp.records(3)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    state = copy.deepcopy(model.state_dict())
    counts = model.get_nb_trainable_parameters()
    dp.engine_rows(model, rows)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert model.get_nb_trainable_parameters() == counts
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.factor


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.factors = nn.ParameterList([nn.Parameter(torch.ones(4))])

    def forward(self, x):
        return x * self.factors[0]


def test_a_parameter_that_no_layer_of_its_own_computes_with_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), Listed())
    with pytest.raises(UnknownLayer, match=r"got none for 1.factors \(ParameterList: 0\).*register_rule"):
        Engine(model)
    model[1].requires_grad_(False)
    assert Engine(model).width == 20  # the twin: frozen, it is accepted


def test_a_registered_rule_makes_a_layer_known(monkeypatch):
    from privkt.dpsgd import Rule, register_rule, rules

    class ScaleRule(Rule):
        def handles(self, module):
            return isinstance(module, Scale)

        def parameters(self, module):
            return ("factor",)

        def forward(self, module, weights, samples, x):
            return x * weights["factor"], (x,)

        def add_rows(self, module, kept, grad, rows):
            rows["factor"] += (grad * kept[0]).flatten(1, -2).sum(1)

    monkeypatch.setattr(rules, "_RULES", list(rules._RULES))
    register_rule(ScaleRule())
    model, x = Scale(), torch.randn(3, 2, 4)
    engine = Engine(model)
    with engine.microbatch(3):
        got = engine.rows(model(x).pow(2).sum((1, 2)), torch.ones(3, dtype=torch.bool))
    assert torch.allclose(got, (2 * x.pow(2)).sum(1), rtol=1e-5)
    assert engine.modes() == {"factor": "rows"}


def test_batch_statistics_are_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(RefusedTraining, match="batch statistics in 1"):
        Engine(model)
    assert Engine(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))).width == 28


def test_a_model_without_trainable_parameters_is_refused(dp):
    model = dp.make("llama").requires_grad_(False)
    with pytest.raises(RefusedTraining, match="must have trainable parameters"):
        Engine(model)


def test_functional_use_of_a_weight_is_refused_by_name():
    class Escaping(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x) @ self.inner.weight

    model = Escaping()
    engine = Engine(model)
    with engine.microbatch(3), pytest.raises(RefusedTraining, match=r"'inner.weight' must be used only by its own"):
        engine.rows(model(torch.randn(3, 4)).sum(1), torch.ones(3, dtype=torch.bool))


def test_an_input_without_a_sample_dimension_is_refused_by_name():
    class Flattening(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x.flatten(0, 1)).view(x.shape)

    model = Flattening()
    with (
        Engine(model).microbatch(3),
        pytest.raises(RefusedTraining, match=r"layer 'inner' \(Linear\).*3 samples.*got 6"),
    ):
        model(torch.randn(3, 2, 4))


def test_a_layer_that_is_unfrozen_or_frozen_later_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].requires_grad_(False)
    engine = Engine(model)
    for layer, changed in ((model[1], True), (model[0], False)):
        layer.requires_grad_(changed)
        with pytest.raises(RefusedTraining, match="must stay those it was made with"):
            engine.open(2)
        layer.requires_grad_(not changed)
    with engine.microbatch(2):
        assert model(torch.zeros(2, 4)).requires_grad


def test_parameters_that_were_replaced_are_refused(dp):
    model = nn.Sequential(nn.Linear(4, 4))
    engine = Engine(model)
    model[0].weight = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(RefusedTraining, match="must be the one it was made with"):
        engine.open(2)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, ids):
        return self.head(torch.tanh(self.norm(self.words(ids))) * 2)


def test_a_compiled_model_gives_the_same_rows():
    torch.manual_seed(2)
    model, ids = Words().double(), torch.randint(9, (3, 4))
    compiled = torch.compile(model, backend="eager")
    compiled(ids)  # compiled before there is an engine
    found = []
    for run in (model, compiled, compiled):
        engine = Engine(run)
        with engine.microbatch(3):
            found.append(engine.rows(run(ids).pow(2).sum((1, 2)), torch.ones(3, dtype=torch.bool)).clone())
        assert "head.weight" in engine.modes()
    assert float(found[0].norm()) > 0
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0])
    assert not any(p.grad is not None for p in model.parameters())

"""A layer without a rule: its own forward, run again for one sample at a time, gives that sample's gradient."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from privkt.dpsgd import RefusedTraining
from privkt.dpsgd.engine import Engine


class Mixer(nn.Module):
    """Parameters of its own around a child with a rule, a mask that all samples share, two outputs."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.randn(4))
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x, mask=None, parts=None):
        mixed = torch.tanh(self.inner(x * self.gate)) + self.shift
        mixed = mixed if mask is None else mixed * mask
        return {"first": mixed, "rest": (mixed.sum(-1), mixed.argmax(-1))} if parts else mixed


class Model(nn.Module):
    def __init__(self, drop=0.0, checkpointed=None):
        super().__init__()
        self.first, self.mixer, self.curve = nn.Linear(4, 4), Mixer(), nn.PReLU(4)
        self.mixed, self.drop, self.checkpointed = nn.Bilinear(4, 4, 3), drop, checkpointed

    def body(self, x):
        found = self.mixer(self.first(x), mask=torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=x.dtype), parts=True)
        y = found["first"] + found["rest"][0].unsqueeze(-1)
        return self.mixed(self.curve(y.transpose(1, 2)).transpose(1, 2), y)

    def forward(self, x):
        if self.checkpointed is None:
            return self.body(x)
        return checkpoint(self.body, x, use_reentrant=self.checkpointed)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=self.training) * self.factor


def _losses(model, x):
    return model(x).pow(2).flatten(1).sum(1)


def _engine_rows(model, x, mask=None, **settings):
    engine = Engine(model, **settings)
    with engine.microbatch(len(x)):
        everyone = torch.ones(len(x), dtype=torch.bool)
        return engine, engine.backward(_losses(model, x), everyone if mask is None else mask).rows().clone()


def _loop(model, x):
    found = []
    for row in x:
        grads = torch.autograd.grad(_losses(model, row.unsqueeze(0)).sum(), list(model.parameters()))
        found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


@pytest.mark.parametrize("checkpointed", [None, False])
def test_rows_match_the_per_sample_loop(checkpointed):
    model, x = Model(checkpointed=checkpointed).double(), torch.randn(5, 3, 4).double()
    engine, got = _engine_rows(model, x)
    expected = _loop(model, x)
    assert float(((got - expected).norm(dim=1) / expected.norm(dim=1)).max()) <= 1e-6
    modes = engine.modes()
    assert {name for name, mode in modes.items() if mode == "fallback"} == {
        "mixer.gate",
        "mixer.shift",
        "curve.weight",
        "mixed.weight",
        "mixed.bias",
    }


def test_a_layer_that_draws_random_numbers_gets_the_same_ones_again():
    model, x = Dropping().double(), torch.randn(6, 3, 4).double()
    torch.manual_seed(1)
    _, got = _engine_rows(model, x)
    after = torch.rand(3)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    assert torch.equal(torch.rand(3), after)  # running again moved nothing
    expected = (2 * dropped.pow(2) * model.factor).sum(1)
    assert float((got - expected).norm() / expected.norm()) <= 1e-6


def test_an_input_that_all_samples_share_may_be_as_long_as_the_batch():
    model, x = Model().double(), torch.randn(4, 3, 4).double()
    engine, expected = Engine(model), _loop(model, x)  # the mask has 4 entries
    for count in (3, 4):
        with engine.microbatch(count):
            got = engine.backward(_losses(model, x[:count]), torch.ones(count, dtype=torch.bool)).rows()
        assert float((got - expected[:count]).norm() / expected[:count].norm()) <= 1e-6
    with pytest.raises(RefusedTraining, match="give the same output"):
        _engine_rows(model, x)  # where it was never seen otherwise, it is refused and not silently cut


def test_a_sample_that_is_not_finite_leaves_the_others_untouched():
    for model in (Model(), Dropping()):
        x = torch.randn(5, 3, 4)
        torch.manual_seed(1)
        _, whole = _engine_rows(model, x)
        x[2, 1, 0] = float("nan")
        torch.manual_seed(1)
        _, got = _engine_rows(model, x)
        assert not got[2].isfinite().all()
        assert torch.equal(got[[0, 1, 3, 4]], whole[[0, 1, 3, 4]])


def test_several_records_a_unit_add_up_and_padding_does_not_count():
    model, x = Model().double(), torch.randn(6, 3, 4).double()
    alone = _loop(model, x)
    _, got = _engine_rows(model, x, torch.tensor([True] * 4 + [False, True]), records_per_unit=2)
    expected = torch.stack([alone[0] + alone[1], alone[2] + alone[3], alone[5]])
    assert float((got - expected).norm() / expected.norm()) <= 1e-6


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return x.flatten(0, 1) * self.factor


class Coupled(Flattened):
    def forward(self, x):
        return x * self.factor + x.mean(0, keepdim=True)


class Counting(Flattened):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.factor * self.calls


class Objects(Flattened):
    def forward(self, x, cache):
        return x * self.factor


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Flattened, r"layer '' \(Flattened\).*output must have the 3 samples first, got 6"),
        (Coupled, r"layer '' \(Coupled\).*run again for one sample alone it must give the same output"),
        (Counting, r"layer '' \(Counting\).*the same output"),
        (Objects, r"layer '' \(Objects\).*plain values, got a object"),
    ],
)
def test_what_cannot_be_run_again_by_sample_is_refused_by_name(kind, message):
    model, x = kind(), torch.randn(3, 2, 4)
    arguments = (x, object()) if kind is Objects else (x,)
    engine = Engine(model)

    def run():
        losses = model(*arguments).pow(2).reshape(3, -1).sum(1)
        engine.backward(losses, torch.ones(3, dtype=torch.bool))

    with engine.microbatch(3), pytest.raises(RefusedTraining, match=message):
        run()


def test_an_input_without_the_samples_is_refused_by_name():
    model = Dropping()
    with pytest.raises(RefusedTraining, match="an input must have the 3 samples"), Engine(model).microbatch(3):
        model(torch.randn(2, 4))

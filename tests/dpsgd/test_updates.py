"""The weights move alike whether noise and optimizer are one pass or two, and stay where no gradient may move them."""

import pytest
import torch

from privkt.dpsgd import RefusedTraining, TrainingError, clipping, mechanism, updates
from privkt.dpsgd.plan import Plan

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, fused=True),
}
NOISES = {
    "gaussian": {},
    "grid": {"noise": "grid"},
    "discrete": {"noise": "discrete"},
    "adaptive": {"clipping": clipping.AdaptiveQuantile(1.0, count_noise=3.0)},
}


class Padded(torch.nn.Module):
    """A padding row, two parameter groups' worth of weights, and nothing else."""

    def __init__(self):
        super().__init__()
        self.words, self.head = torch.nn.Embedding(61, 4, padding_idx=0), torch.nn.Linear(4, 61)

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        return type("Output", (), {"logits": self.head(self.words(input_ids))})()

    def groups(self):
        return [{"params": self.words.parameters()}, {"params": self.head.parameters(), "lr": 3e-3}]


def trained(dp, kind, *, unfused, steps=3, **changes):
    """A padded model after training with test keys, and how its weights moved."""
    torch.manual_seed(5)
    model = Padded()
    optimizer = OPTIMIZERS[kind](model.groups())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    settings = {"optimizer": optimizer, "scheduler": scheduler, "test_keys": dp.keys(2), "steps": steps, **changes}
    training = dp.training(model, **settings)
    with pytest.MonkeyPatch.context() as patch:
        if unfused:
            patch.setattr(updates, "why_not", lambda optimizer: "this test wants the other way")
        assert bool(training._weights.why_unfused()) == unfused
        dp.run(training)
    return model, optimizer, training


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_one_pass_and_two_give_the_same_weights_and_state(dp, kind, noise):
    """Rates of two groups, decay, a schedule, a padding row: equal to a few units in the last place after 3 steps."""
    (one, fused, _), (two, plain, _) = (trained(dp, kind, unfused=way, **NOISES[noise]) for way in (False, True))
    torch.testing.assert_close(dp.weights(one), dp.weights(two), rtol=3e-6, atol=1e-7)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert p.grad is q.grad is None
        torch.testing.assert_close(fused.state[p], plain.state[q], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("unfused", [False, True])
def test_stretches_and_microbatches_change_no_bit(dp, monkeypatch, unfused, noise):
    """One stretch or one for each parameter; 12 records at once, or sums that wait for a second microbatch."""
    found = []
    for least, size in ((2**20, 60), (1, 60), (1, 30)):
        monkeypatch.setattr(mechanism, "_STRETCH", least)
        rows = [row[:4] for row in dp.records()]
        model, *_ = trained(dp, "adamw", unfused=unfused, dataset=rows, microbatch_size=size, **NOISES[noise])
        found.append(dp.weights(model))
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=3e-6, atol=1e-7)


def test_a_mean_is_never_made_in_one_pass_nor_a_second_noise_in_two(dp, monkeypatch):
    calls = []
    for name in ("take", "step_"):
        whole = getattr(mechanism.NoisyMean, name)
        monkeypatch.setattr(
            mechanism.NoisyMean, name, lambda *a, _n=name, _w=whole, **k: (calls.append(_n), _w(*a, **k))[1]
        )
    trained(dp, "adamw", unfused=False)
    trained(dp, "adamw", unfused=True)
    assert calls == ["step_"] * 3 + ["take"] * 3


def test_a_hook_of_the_optimizer_runs_and_sees_the_gradient(dp):
    model = Padded()
    optimizer = OPTIMIZERS["adamw"](model.groups())
    seen = []
    optimizer.register_step_pre_hook(lambda own, *_: seen.append(own.param_groups[0]["params"][0].grad.clone()))
    dp.run(dp.training(model, optimizer=optimizer))
    assert len(seen) == 3
    assert not seen[0][0].any()  # padding
    assert seen[0][1:].all()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_resumed_training_goes_on_as_one_that_was_not_stopped(dp, monkeypatch, tmp_path, kind):
    """Without noise, which has a fresh key after a crash, and with the draws of one sampler key."""
    monkeypatch.setattr(Plan, "noise_deviation_at", lambda plan, norm: 0.0)
    whole, *_ = trained(dp, kind, unfused=False)
    torch.manual_seed(5)
    for stop in (2, None):
        model = Padded()
        optimizer = OPTIMIZERS[kind](model.groups())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        settings = {"checkpoint": tmp_path, "checkpoint_every": 1, "test_keys": dp.keys(2)}
        training = dp.training(model, optimizer=optimizer, scheduler=scheduler, **settings)
        dp.run(training, stop_after=stop)
    assert torch.equal(dp.weights(model), dp.weights(whole))


def test_the_correction_takes_the_noises_variance_off_the_second_moment(dp):
    """A first step of AdamW moves by lr g / sqrt(max(g^2 - v, v / 100)), v the variance of g's noise."""
    torch.manual_seed(5)
    before = dp.weights(Padded())
    gradients = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            gradients.extend(p.grad.flatten().double() for group in self.param_groups for p in group["params"])

    torch.manual_seed(5)
    model = Padded()
    watching = dp.training(model, optimizer=Watched(model.parameters(), lr=0.0), test_keys=dp.keys(2), steps=1)
    dp.run(watching)
    torch.manual_seed(5)
    model = Padded()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    training = dp.training(model, optimizer=optimizer, test_keys=dp.keys(2), steps=1, noise_bias_correction=True)
    dp.run(training)
    g, v = torch.cat(gradients), (training.plan.noise_deviation / training.plan.divisor) ** 2
    expected = before - 1e-2 * g / (g.square() - v).clamp(min=v / 100).sqrt()
    torch.testing.assert_close(dp.weights(model), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "changes", "reason"),
    [
        (torch.optim.SGD, {}, "SGD has no second moment"),
        (torch.optim.RMSprop, {}, "the optimizer must be torch's SGD, Adam or AdamW itself, got RMSprop"),
        (
            torch.optim.AdamW,
            {"sampler": "fixed-order", "noise": "correlated", "coefficients": (1.0, -0.5)},
            "correlated noise is a sum of several values",
        ),
    ],
)
def test_a_correction_that_cannot_be_made_is_refused_before_anything_is_spent(dp, optimizer, changes, reason):
    model = Padded()
    with pytest.raises(RefusedTraining, match=f"noise_bias_correction needs torch's Adam or AdamW.*{reason}"):
        dp.training(model, optimizer=optimizer(model.parameters(), lr=1e-2), noise_bias_correction=True, **changes)


def test_a_correction_that_can_no_longer_be_made_stops_the_training(dp):
    model = Padded()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    training = dp.training(model, optimizer=optimizer, noise_bias_correction=True)
    optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(RefusedTraining, match="the optimizer must have no step hooks, got one"):
        dp.run(training)


def test_half_precision_weights_take_torchs_own_step(dp):
    training = dp.training(Padded().bfloat16())
    assert training._weights.why_unfused() == "parameters must be float32"
    dp.run(training)


@pytest.mark.parametrize("unfused", [False, True])
def test_weights_that_never_move_are_found_either_way(dp, unfused, monkeypatch):
    if unfused:
        monkeypatch.setattr(updates, "why_not", lambda optimizer: "this test wants the other way")
    model = Padded()
    training = dp.training(model, optimizer=torch.optim.SGD(model.parameters(), lr=1e-30))
    with pytest.raises(TrainingError, match="first step must move"):
        dp.run(training)


def test_one_weight_that_moves_is_enough(dp):
    """Rows that padding keeps still, or small rates, are no reason to stop."""
    model = Padded()
    groups = [{"params": model.words.parameters(), "lr": 0.0}, {"params": [model.head.weight], "lr": 0.0}]
    groups.append({"params": [model.head.bias], "lr": 0.1})
    dp.run(dp.training(model, optimizer=torch.optim.SGD(groups, lr=0.1)))


def test_sums_come_before_any_weight_moves_where_something_kept_is_a_weight(dp, monkeypatch):
    from privkt.dpsgd.gradients import SampleGradients

    order = []
    added = SampleGradients.add_clipped
    monkeypatch.setattr(mechanism, "_STRETCH", 1)
    monkeypatch.setattr(SampleGradients, "add_clipped", lambda *a, **k: (order.append("sum"), added(*a, **k))[1])
    moved = mechanism.kernels.noisy_step_
    monkeypatch.setattr(mechanism.kernels, "noisy_step_", lambda *a, **k: (order.append("move"), moved(*a, **k))[1])
    for reads in (False, True):
        monkeypatch.setattr(SampleGradients, "reads_weights", reads)
        trained(dp, "sgd", unfused=False, steps=1, microbatch_size=60)
    assert order == ["sum", "move"] * 3 + ["sum"] * 3 + ["move"] * 3


def test_a_padding_column_stays_and_makes_the_step_two_passes(dp):
    """LoRA on an embedding: its padding vector is a column of A, and no row."""
    from trainable_models import ids, losses_of, make

    model = make("llama-lora-embedding")
    (name, still) = next((n, p) for n, p in model.named_parameters() if "lora_embedding_A" in n)
    before = still.detach().clone()
    training = dp.training(model, dataset=[*ids()] * 15, collate_fn=torch.stack, steps=2)
    (place,) = [at for slot, at in training._engine.layout.still if slot.parameter is still]
    for batch in training:
        training.step(losses_of(model, batch))
    assert torch.equal(still[place], before[place])
    assert not torch.equal(still, before), name

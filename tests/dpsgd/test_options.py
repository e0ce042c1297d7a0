"""PrivateTraining with other samplers, clippings, noises and units: what it does is what its plan says."""

import math

import numpy as np
import pytest
import torch

from privkt.dpsgd import CheckpointError, RefusedTraining, clipping
from privkt.privacy import Budget, accounting
from privkt.privacy.guarantee import Unit

OPTIONS = {
    "grid": {"noise": "grid"},
    "discrete": {"noise": "discrete"},
    "per layer": {"clipping": clipping.PerLayer(0.5)},
    "automatic": {"clipping": clipping.Automatic(0.5)},
    "adaptive": {"clipping": clipping.AdaptiveQuantile(0.5, count_noise=3.0)},
    "adaptive on a grid": {"clipping": clipping.AdaptiveQuantile(0.5, count_noise=3.0), "noise": "grid"},
    "adaptive and discrete": {"clipping": clipping.AdaptiveQuantile(0.5, count_noise=3.0), "noise": "discrete"},
    "truncated": {"sampler": "truncated-poisson", "cap": 24},
    "fixed order": {"sampler": "fixed-order"},
    "correlated": {"sampler": "fixed-order", "noise": "correlated", "coefficients": (1.0, -0.5)},
    "reentrant order": {"sampler": "balls-in-bins"},
}


def sums_of(monkeypatch):
    """Collects (total as float64, deviation) of every noisy sum, with the noise left out."""
    from privkt import kernels

    seen = []

    def noisy_sum(total, sigma, key, step, offset=0, *, scale=None):
        seen.append((total.double() / (scale or 1.0), sigma, step, offset))
        return (total.double() / (scale or 1.0)).float()

    monkeypatch.setattr(kernels, "noisy_sum", noisy_sum)
    monkeypatch.setattr("privkt.dpsgd.updates.why_not", lambda optimizer: "the sum is watched on its way")
    return seen


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains_charges_what_its_plan_says_and_releases(option, dp, ledger):
    model = dp.make("llama-lora")
    before = dp.weights(model)
    training = dp.training(model, budget=Budget(8.0, 1e-3, ledger=ledger), verify=True, **OPTIONS[option])
    dp.run(training)
    release = training.finish()
    plan = training.plan
    assert not torch.equal(dp.weights(model), before)
    assert release.event == plan.event()
    assert accounting.epsilon(plan.event(), plan.delta - plan.slack_delta) <= plan.epsilon * (1 + 1e-9) <= 8.0 + 1e-6
    assert type(plan).from_json(release.provenance.details) == plan
    assert ledger.status(release.charge).taken == 3


def test_grid_sums_are_those_of_float64_to_a_cell(dp, monkeypatch):
    found = {}
    for noise in ("gaussian", "grid"):
        seen = sums_of(monkeypatch)
        dp.run(dp.training(dp.make("llama-lora"), noise=noise, test_keys=dp.keys(1)))
        found[noise] = seen[0][0]
    assert float((found["gaussian"] - found["grid"]).abs().max()) < 24 * 2.0**-20


@pytest.mark.parametrize("noise", ["grid", "discrete"])
@pytest.mark.parametrize("model", ["llama-tied", "albert"])
def test_weights_of_several_layers_are_summed_on_a_grid(dp, monkeypatch, model, noise):
    """One record alone is never longer than the clipping norm, in whole cells."""
    torch.manual_seed(1)
    if noise == "discrete":
        monkeypatch.setattr("privkt.kernels.add_discrete_gaussian_", lambda total, *_: total)
    seen = sums_of(monkeypatch)
    made = dp.make(model)
    training = dp.training(
        made,
        optimizer=torch.optim.SGD(made.parameters(), lr=0.1),
        noise=noise,
        max_grad_norm=1e-3,
        steps=1,
        microbatch_size=12,
    )
    monkeypatch.setattr(training._sampler, "draw", lambda step: np.arange(1))
    for batch in training:
        training.step(dp.losses_of(made, batch))
    total = torch.cat([part for part, *_ in seen])
    assert 0.99e-3 < float(total.norm()) <= 1e-3
    assert training._engine.layout.shared == (made.lm_head.weight.numel() if model == "llama-tied" else 0)


@pytest.mark.parametrize("microbatch", [2, 5])
def test_a_grid_gives_the_same_bits_for_every_microbatching_of_the_same_rows(dp, monkeypatch, microbatch):
    """One length, so that rows themselves round alike; float64 sums of them differ in their last bits."""
    rows = [row[:4] for row in dp.records()]
    seen = sums_of(monkeypatch)
    for size in (12, microbatch):
        dp.run(
            dp.training(
                dp.make("llama-lora"), dataset=rows, noise="grid", microbatch_size=size, test_keys=dp.keys(1), steps=1
            )
        )
    whole, parts = (total for total, *_ in seen)
    assert float((whole - parts).abs().max()) <= 1e-6 * float(whole.abs().max())


def test_per_layer_sums_are_bounded_together_and_bear_the_noise_of_the_whole_norm(dp, monkeypatch):
    seen = sums_of(monkeypatch)
    training = dp.training(dp.make("llama-lora"), clipping=clipping.PerLayer(0.01), microbatch_size=12, batch_size=60)
    dp.run(training)
    total, sigma, *_ = seen[0]
    assert 0 < float(total.norm()) <= 60 * 0.01
    parts = [float(part.norm()) for _, part in training._engine.layout.split(total)]
    assert max(parts) <= 60 * 0.01 / len(parts) ** 0.5
    assert sigma == training.plan.noise_deviation_at(0.01)


def test_the_adaptive_norm_moves_by_its_noisy_count_and_the_noise_follows(dp, monkeypatch):
    seen = sums_of(monkeypatch)
    kind = clipping.AdaptiveQuantile(1e-3, quantile=0.5, count_noise=3.0)
    training = dp.training(dp.make("llama-lora"), clipping=kind, test_keys=dp.keys(1))
    dp.run(training)
    sums, counts = seen[0::2], seen[1::2]
    assert [offset for *_, offset in counts] == [training.plan.coordinates] * 3
    norm = 1e-3
    for (_, sigma, *_), (count, noise, *_) in zip(sums, counts, strict=True):
        assert sigma == pytest.approx(training.plan.noise_deviation_at(norm))
        assert noise == pytest.approx(training.plan.count_deviation)
        norm = kind.moved(norm, float(count), training.plan.batch_size)
    assert "clipping norm" in " ".join(training.plan.guarantee().conditional_on)
    assert norm > 1e-3  # every sample was above so small a norm
    z_sum, z_count = kind.noise_split(training.plan.noise_multiplier)
    assert z_sum**-2 + (2 * z_count) ** -2 <= training.plan.noise_multiplier**-2


def test_correlated_noise_subtracts_a_part_of_the_last(dp):
    """Over empty batches a step gives z_t - z_(t-1) / 2, z being what the stream of that step gives."""
    from privkt import kernels
    from privkt.dpsgd.layout import lay_out
    from privkt.dpsgd.mechanism import NoisyMean

    options = OPTIONS["correlated"]
    training = dp.training(dp.make("llama-lora"), **options)
    plan, layout = training.plan, lay_out(training.model)
    mean = NoisyMean(plan, bytes(32), layout)
    found = [mean.take() * plan.divisor for _ in range(3)]
    z = [kernels.gaussian_noise(torch.empty(layout.width), plan.noise_deviation, bytes(32), step=t) for t in range(3)]
    for step, expected in enumerate([z[0], z[1] - z[0] / 2, z[2] - z[1] / 2]):
        assert float((found[step] - expected).abs().max()) < 1e-5 * plan.noise_deviation
    assert "rounded" in " ".join(plan.guarantee().conditional_on)


def test_a_user_moves_the_sum_by_no_more_than_the_norm_however_many_records(dp, monkeypatch):
    """Users of 6 records in microbatches of 4: pieces add up before the norm is taken."""
    users = [list(range(6 * user, 6 * user + 6)) for user in range(10)]
    for size in (4, 12):
        seen = sums_of(monkeypatch)
        training = dp.training(
            dp.make("llama-lora"),
            users=users,
            records_per_user=6,
            size=10,
            batch_size=10,
            microbatch_size=size,
            max_grad_norm=0.01,
            budget=Budget(8.0, 1e-3, unit=Unit.USER),
            steps=1,
            test_keys=dp.keys(0),
        )
        dp.run(training)
        total = float(seen[0][0].norm())
        assert total <= 10 * 0.01 * (1 + 1e-6)
        assert training.plan.unit == "user"
        if size == 4:
            in_pieces = seen[0][0]
    assert float((in_pieces - seen[0][0]).abs().max()) < 1e-5 * 0.01


def test_adaptive_norm_and_secret_bins_survive_a_resume(dp, ledger, tmp_path):
    settings = {
        "budget": Budget(8.0, 1e-3, ledger=ledger),
        "checkpoint": tmp_path,
        "checkpoint_every": 1,
        "steps": 5,
        "sampler": "balls-in-bins",
        "clipping": clipping.AdaptiveQuantile(1e-3, count_noise=3.0),
    }
    first = dp.training(**settings)
    dp.run(first, stop_after=2)
    drawn = [first._sampler.draw(step).tolist() for step in range(2, 5)]
    second = dp.training(**settings)
    assert second.steps_taken == 2
    assert second._mean.norm == first._mean.norm != 1e-3
    assert [second._sampler.draw(step).tolist() for step in range(2, 5)] == drawn
    dp.run(second)
    assert second.finish().charge == ledger.charges()[0].id
    with pytest.raises(CheckpointError, match="plan must be the one"):
        dp.training(**{**settings, "sampler": "poisson"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cap": 20}, "has no cap"),
        ({"noise": "laplace"}, "noise must be one of"),
        ({"noise": "correlated", "coefficients": (1.0, -0.5)}, "correlated|independent"),
        ({"clipping": clipping.Flat(2.0), "max_grad_norm": 1.0}, "max_grad_norm must be that of the clipping"),
        ({"records_per_user": 3}, "must be given together"),
        ({"users": [[0]] * 60, "records_per_user": 3}, "declare unit: user"),
        ({"users": [[0]], "records_per_user": None}, "records_per_user"),
        ({"clipping": clipping.AdaptiveQuantile(1.0, count_noise=0.1)}, "count_noise must be above half"),
    ],
)
def test_options_that_do_not_go_together_are_refused(dp, changes, said):
    with pytest.raises(RefusedTraining, match=said):
        dp.training(**changes)
    assert math.isfinite(dp.training().plan.epsilon)

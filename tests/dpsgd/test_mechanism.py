"""Clipped, summed, noised once: the mechanism as it runs, on rows of any kind."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from privkt import kernels
from privkt.dpsgd import Keys, TrainingError, make_plan
from privkt.dpsgd.clipping import AdaptiveQuantile
from privkt.dpsgd.layout import Slot
from privkt.dpsgd.mechanism import NoisyMean
from privkt.privacy import Budget

FALSE_ALARM = 1e-6
WIDTH = 40_000


@pytest.fixture
def plan():
    return make_plan(
        Budget(2.0, 1e-5),
        size=1000,
        batch_size=100,
        steps=10,
        max_grad_norm=0.5,
        microbatch_size=4,
        coordinates=WIDTH,
        variation_per_coordinate=0.0,
    )


class Rows:
    """Gradients that are given, in the form that an engine hands on."""

    def __init__(self, rows, mask):
        self.stored, self.mask = rows, mask

    def sqnorms(self, groups):
        assert len(groups) == 1
        return kernels.row_sqnorms(self.stored, self.mask)[:, None]

    def forget(self, start=0, stop=None):
        self.stored = None

    def add_clipped(self, total, factors, *, start=0, **grid):
        kernels.clipped_sum(self.stored, factors[:, 0].contiguous(), self.mask, out=total, **grid)


class Mean(NoisyMean):
    """One parameter of WIDTH values; `add` takes rows and a mask."""

    def __init__(self, plan, seed, shared=0):
        layout = SimpleNamespace(slots=[Slot("weight", None, 0, WIDTH)], shared=shared, device=torch.device("cpu"))
        super().__init__(plan, Keys.for_tests(seed).noise, layout)

    def add(self, rows, mask):
        super().add(Rows(rows, mask))


def _mean(plan, seed=0, shared=0):
    return Mean(plan, seed, shared)


def _without_noise(plan):
    quiet = copy.copy(plan)
    object.__setattr__(quiet, "noise_multiplier", 0.0)  # no plan can be made so
    return quiet


def _scale_p_value(noise, deviation):
    """Two-sided chi-square test of the variance, doubled for the two sides."""
    statistic = float((noise.double() / deviation).pow(2).sum())
    tails = stats.chi2.cdf(statistic, len(noise)), stats.chi2.sf(statistic, len(noise))
    return 2 * min(tails)


def test_noise_has_the_planned_scale(plan):
    """On an empty batch the gradient is noise alone: variance by chi-square, shape by Kolmogorov, 1e-6 in all."""
    noise = _mean(plan).take()
    deviation = plan.noise_multiplier * 0.5 * (1 + plan.sensitivity_slack) / (plan.sampling_rate * plan.n)
    assert _scale_p_value(noise, deviation) > FALSE_ALARM / 2
    assert stats.kstest((noise / deviation).numpy(), "norm").pvalue > FALSE_ALARM / 2


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_scale_would_fail_that_test(plan, factor):
    noise = factor * _mean(plan).take()
    assert _scale_p_value(noise, plan.noise_deviation / plan.divisor) < FALSE_ALARM


def test_noise_differs_between_steps_and_keys(plan):
    """Correlation of independent noise, two-sided normal test at 1e-6."""
    mean = _mean(plan)
    draws = [mean.take(), mean.take(), _mean(plan, seed=1).take()]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        correlation = float((draws[a] * draws[b]).sum() / (draws[a].norm() * draws[b].norm()))
        assert 2 * stats.norm.sf(abs(correlation) * WIDTH**0.5) > FALSE_ALARM / 3


def test_clipped_rows_never_exceed_the_norm(plan):
    torch.manual_seed(1)
    quiet = _without_noise(plan)
    for scale in (1e-30, 1e-3, 1.0, 1e4, 1e30):
        for _ in range(5):
            mean = _mean(quiet)
            mean.add(scale * torch.randn(1, WIDTH), torch.tensor([True]))
            assert float((mean.take().double() * quiet.divisor).norm()) <= 0.5 * (1 + 1e-6)


def test_removing_one_record_moves_the_sum_by_at_most_the_norm(plan):
    torch.manual_seed(2)
    quiet = _without_noise(plan)
    rows = torch.randn(4, WIDTH) * torch.tensor([[1e-3], [1.0], [50.0], [1e5]])
    sums = []
    for removed in (None, 0, 1, 2, 3):
        mean = _mean(quiet)
        mean.add(rows, torch.tensor([i != removed for i in range(4)]))
        sums.append(mean.take().double() * quiet.divisor)
    for without in sums[1:]:
        assert float((sums[0] - without).norm()) <= 0.5 * (1 + plan.sensitivity_slack)


def test_short_rows_are_left_as_they_are(plan):
    quiet, row = _without_noise(plan), torch.zeros(1, WIDTH)
    row[0, 3] = 0.25
    mean = _mean(quiet)
    mean.add(row, torch.tensor([True]))
    assert torch.equal(mean.take() * quiet.divisor, row[0])


def test_rows_that_are_not_finite_do_not_count(plan):
    quiet = _without_noise(plan)
    rows = torch.zeros(3, WIDTH)
    rows[0, 0], rows[1, 1], rows[2, 2] = float("nan"), float("inf"), 0.25
    mean = _mean(quiet)
    mean.add(rows, torch.tensor([True] * 3))
    assert torch.equal(mean.take() * quiet.divisor, torch.where(rows.isfinite(), rows, 0)[2])


def test_masked_rows_do_not_count(plan):
    quiet = _without_noise(plan)
    mean = _mean(quiet)
    mean.add(torch.ones(2, WIDTH), torch.tensor([False, False]))
    assert not mean.take().any()


def test_the_microbatch_size_does_not_change_the_clipped_sum(plan):
    torch.manual_seed(3)
    quiet, rows = _without_noise(plan), torch.randn(12, WIDTH)
    sums = []
    for size in (1, 3, 12):
        mean = _mean(quiet)
        for part in rows.split(size):
            mean.add(part, torch.ones(len(part), dtype=torch.bool))
        sums.append(mean.take())
    assert torch.allclose(sums[0], sums[1], rtol=1e-6, atol=0)
    assert torch.allclose(sums[0], sums[2], rtol=1e-6, atol=0)


def test_a_cut_batch_leaves_nothing_behind(plan):
    quiet = _without_noise(plan)
    mean = _mean(quiet)
    mean.add(torch.ones(1, WIDTH), torch.tensor([True]))
    mean.begin()
    assert not mean.take().any()


def test_an_erased_key_gives_no_noise(plan):
    mean = _mean(plan)
    mean.erase()
    with pytest.raises(TrainingError, match="erased by finish"):
        mean.take()


def test_discrete_noise_is_whole_cells_of_the_planned_deviation(plan):
    """Every value is a whole number of cells; variance by chi-square at 1e-6 (cells are far finer than the noise)."""
    discrete = dataclasses.replace(plan, noise="discrete")
    noise = _mean(discrete).take().double() * discrete.divisor
    scale, sigma = kernels.discrete_grid(0.5, plan.n, plan.noise_deviation)
    assert kernels.accounted_sigma(sigma)[0] >= plan.noise_deviation * scale
    expected = torch.zeros(WIDTH, dtype=torch.int64)
    kernels.add_discrete_gaussian_(expected, sigma, Keys.for_tests(0).noise, 0)
    assert float((noise - expected.double() / scale).abs().max()) <= 1e-6 * float(noise.abs().max())
    assert _scale_p_value(noise, plan.noise_deviation) > FALSE_ALARM


def test_discrete_noise_is_added_to_the_same_cells_as_on_a_grid(plan):
    torch.manual_seed(4)
    rows, found = torch.randn(6, WIDTH), {}
    for noise in ("grid", "discrete"):
        mean = _mean(dataclasses.replace(plan, noise=noise))
        mean.add(rows, torch.ones(6, dtype=torch.bool))
        found[noise] = mean._sums[0].double() / mean._scale
    assert float((found["grid"] - found["discrete"]).abs().max()) <= 6 / mean._scale
    assert float(found["discrete"].norm()) <= 6 * 0.5


@pytest.mark.parametrize("noise", ["grid", "discrete"])
def test_weights_of_several_layers_are_clipped_to_what_two_cuttings_leave(plan, noise):
    """A row as long as the clipping norm loses what the second cutting of `shared` coordinates may add."""
    rows = torch.zeros(1, WIDTH)
    rows[0, 0] = 1.0
    sums = {}
    for shared in (0, 2**60):
        mean = _mean(dataclasses.replace(plan, noise=noise), shared=shared)
        mean.add(rows, torch.tensor([True]))
        sums[shared] = float(mean._sums[0][0]) / mean._scale
    lost = 2**30 / mean._scale
    assert 0.5 - 1e-6 < sums[0] <= 0.5
    assert lost > 1e-5
    assert sums[2**60] <= 0.5 - lost < sums[2**60] + 1e-6


def test_a_count_gets_discrete_noise_of_its_own(plan, monkeypatch):
    kind = AdaptiveQuantile(0.5, count_noise=plan.noise_multiplier)
    mean = _mean(dataclasses.replace(plan, noise="discrete", clipping=kind))
    drawn = []
    add = kernels.add_discrete_gaussian_
    monkeypatch.setattr(
        kernels, "add_discrete_gaussian_", lambda total, *a: (drawn.append((total.clone(), *a)), add(total, *a))[1]
    )
    mean.add(0.01 * torch.ones(3, WIDTH) / WIDTH**0.5, torch.ones(3, dtype=torch.bool))
    mean.take()
    (_, _, _, draw, start), (count, sigma, _, again, place) = drawn
    scale, _ = kernels.discrete_grid(0.5, plan.n, mean._plan.count_deviation)
    assert (start, place, draw, again) == (0, WIDTH, 0, 0)
    assert count.tolist() == [1.5 * scale]
    assert kernels.accounted_sigma(sigma)[0] >= mean._plan.count_deviation * scale


def test_a_step_that_fails_has_used_its_noise_up(plan):
    """A mean that was asked for and not given must not lend its noise to another sum."""
    mean, straight = _mean(plan), _mean(plan)
    straight.take()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mean, "_noisy", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mean.take()
    mean.begin()
    assert torch.equal(mean.take(), straight.take())

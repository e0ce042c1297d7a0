"""Clipped, summed, noised once: the mechanism as it runs, on rows of any kind."""

import copy
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from privkt import kernels
from privkt.dpsgd import Keys, TrainingError, make_plan
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

    def add_clipped(self, total, factors, **grid):
        kernels.clipped_sum(self.stored, factors[:, 0].contiguous(), self.mask, out=total, **grid)


class Mean(NoisyMean):
    """One parameter of WIDTH values; `add` takes rows and a mask."""

    def __init__(self, plan, seed):
        layout = SimpleNamespace(slots=[Slot("weight", None, 0, WIDTH)], device=torch.device("cpu"))
        super().__init__(plan, Keys.for_tests(seed).noise, layout)

    def add(self, rows, mask):
        super().add(Rows(rows, mask))


def _mean(plan, seed=0):
    return Mean(plan, seed)


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

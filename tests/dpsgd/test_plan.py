"""The plan: its numbers from declared ones alone, its refusals, its JSON."""

import json
import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from privkt.dpsgd import Plan, RefusedTraining, make_plan, steps_of
from privkt.privacy import Budget, InvalidBudget, accounting, sampler_share


def _plan(**changes):
    settings = {
        "budget": Budget(3.0, 1e-5),
        "size": 2000,
        "batch_size": 256,
        "steps": 160,
        "max_grad_norm": 1.0,
        "microbatch_size": 8,
        "coordinates": 10_000,
        "variation_per_coordinate": 2.0**-60,
    }
    return make_plan(**{**settings, **changes})


def test_the_plan_meets_the_budget_and_wastes_little_of_it():
    plan = _plan()
    assert 0.99 * 3.0 < plan.epsilon <= 3.0
    assert plan.replace_one_epsilon > plan.epsilon
    assert plan.sampling_rate == 256 / 2000
    assert plan.divisor == 256
    assert plan.sampler == "poisson"


def test_epsilon_is_recomputed_by_dp_accounting_alone():
    plan = _plan()
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(plan.sampling_rate, dp_accounting.GaussianDpEvent(plan.noise_multiplier)),
        plan.steps,
    )
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    assert math.isclose(accountant.compose(event).get_epsilon(plan.delta), plan.epsilon, rel_tol=1e-3)


def test_the_published_recipe_has_its_published_noise():
    """The figure of the FDKT page for N = 2000, batch 256, 20 epochs: 0.0095 at epsilon 3 and 0.0048 at 8."""
    steps = steps_of(2000, 256, 20, None)
    assert steps == 157
    assert math.isclose(_plan(steps=steps).noise_per_coordinate, 0.0095, rel_tol=0.02)
    assert math.isclose(_plan(steps=steps, budget=Budget(8.0, 1e-5)).noise_per_coordinate, 0.0048, rel_tol=0.02)


def test_the_noise_covers_the_slack_of_the_sensitivity():
    plan = _plan(max_grad_norm=0.7)
    assert plan.noise_deviation == plan.noise_multiplier * 0.7 * (1 + plan.sensitivity_slack)
    assert 0 < plan.sensitivity_slack < 0.01


@pytest.mark.parametrize("batch", [256, 2048, 5000, 20_000])
def test_the_slack_covers_errors_of_all_rows_that_point_one_way(batch):
    plan = _plan(size=10 * batch, batch_size=batch, budget=Budget(3.0, 1e-7), steps=10)
    assert plan.sensitivity_slack > max(2.0**-10, 2 * batch * 2e-7)
    assert plan.sensitivity_slack < 0.0011 + batch * 2.0**-20


def test_the_sampler_distance_is_taken_from_delta():
    plan = _plan(coordinates=10_000_000, budget=Budget(22.0, 1e-5))
    distance = 2.0**-60 * 10_000_000 * 160
    assert plan.slack_delta == distance * (1 + 2.0**-26 * math.exp(22.0)) > sampler_share(plan.delta)
    spendable = plan.delta - plan.slack_delta
    assert plan.epsilon == accounting.epsilon(plan.event(), spendable)


def test_the_replace_one_epsilon_has_the_slack_of_its_own_size():
    plan = _plan(coordinates=10_000_000, budget=Budget(16.0, 1e-5))
    assert plan.slack_delta == sampler_share(plan.delta)
    own = 2.0**-60 * 10_000_000 * 160 * (1 + 2.0**-26 * math.exp(plan.replace_one_epsilon))
    assert plan.slack_delta < own < plan.delta
    assert accounting.replace_one_epsilon(plan.event(), plan.delta - own) <= plan.replace_one_epsilon


def test_a_replace_one_epsilon_that_cannot_be_stated_is_infinite_and_survives_json():
    plan = _plan(coordinates=10_000_000, budget=Budget(22.0, 1e-5))
    assert plan.replace_one_epsilon == math.inf
    assert Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False))) == plan
    assert plan.guarantee().replace_one_epsilon == math.inf


def test_a_plan_made_without_knowing_the_coordinates_is_the_one_that_runs():
    few, more = _plan(coordinates=100), _plan(coordinates=10_000)
    assert few.slack_delta == more.slack_delta == sampler_share(1e-5)
    noise = accounting.calibrate_noise(3.0, 1e-5 - sampler_share(1e-5), few.sampling_rate, few.steps)
    assert few.noise_multiplier == more.noise_multiplier == noise


def test_a_huge_epsilon_with_many_coordinates_is_refused():
    with pytest.raises(InvalidBudget, match="slack_delta"):
        _plan(budget=Budget(32.0, 1e-5), coordinates=40_000_000)
    assert _plan(budget=Budget(32.0, 1e-5), coordinates=100).epsilon <= 32.0


def test_a_coarse_noise_sampler_is_refused():
    with pytest.raises(RefusedTraining, match="distance from a Gaussian"):
        _plan(variation_per_coordinate=1e-13)
    assert _plan(variation_per_coordinate=1e-15).slack_delta == sampler_share(1e-5)


def test_the_plan_survives_json_and_its_digest_names_it():
    plan = _plan()
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.digest() == plan.digest()
    assert _plan(steps=161).digest() != plan.digest()


def test_the_guarantee_says_what_it_depends_on():
    guarantee = _plan().guarantee()
    assert guarantee.conditional_on == ("N = 2000 is public",)
    assert guarantee.replace_one_epsilon == _plan().replace_one_epsilon
    assert str(guarantee.neighbouring) == "zero-out"


def test_half_precision_makes_the_guarantee_conditional():
    plan = _plan(half_precision=True)
    _, condition = plan.guarantee().conditional_on
    assert condition.startswith("matrix kernels round each record alike whatever the other records")
    assert "half precision" in condition
    assert plan.noise_multiplier == _plan().noise_multiplier


def test_a_replace_one_budget_is_met_under_replace_one():
    plan = _plan(budget=Budget(3.0, 1e-5, neighbouring="replace-one"))
    assert plan.epsilon <= 3.0
    assert plan.noise_multiplier > _plan().noise_multiplier


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 2001}, "between 1 and N = 2000, got 2001"),
        ({"batch_size": 0}, "between 1 and N = 2000, got 0"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be finite"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be finite"),
        ({"budget": Budget(3.0, 1e-5, unit="user")}, "unit must be record"),
        ({"budget": Budget(3.0, 1e-5, neighbouring="local")}, "zero-out, add-remove or replace-one"),
    ],
)
def test_numbers_that_no_training_may_have_are_refused(changes, message):
    with pytest.raises(RefusedTraining, match=message):
        _plan(**changes)


def test_a_delta_of_one_in_n_is_refused_unless_reproduced():
    with pytest.raises(InvalidBudget, match="below 1/N"):
        _plan(budget=Budget(3.0, 5e-4))
    with pytest.warns(UserWarning, match="reproduce"):
        assert _plan(budget=Budget(3.0, 5e-4, reproduce=True)).delta == 5e-4


@pytest.mark.parametrize(
    ("size", "batch", "epochs", "expected"), [(2000, 256, 20, 157), (100, 10, 3, 30), (100, 30, 1, 4), (10, 10, 0.1, 1)]
)
def test_steps_are_rounded_up(size, batch, epochs, expected):
    assert steps_of(size, batch, epochs, None) == expected


@pytest.mark.parametrize("given", [(None, None), (1, 5), (0, None), (None, 0)])
def test_epochs_or_steps_but_not_both(given):
    with pytest.raises(RefusedTraining, match=r"exactly one of epochs and steps|at least one step"):
        steps_of(100, 10, *given)

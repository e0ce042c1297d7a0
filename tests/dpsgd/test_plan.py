"""The plan: its numbers from declared ones alone, its refusals, its JSON."""

import dataclasses
import json
import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from privkt.dpsgd import Plan, RefusedTraining, make_plan, steps_of
from privkt.dpsgd.clipping import AdaptiveQuantile, Automatic, Flat, PerLayer
from privkt.dpsgd.plan import values_released
from privkt.dpsgd.sampling import PoissonSampler
from privkt.dpsgd.slacks import sampler_slack, variation_per_coordinate
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
    with pytest.raises(RefusedTraining, match=r"epsilon = 32 is so large .* ask for a smaller epsilon"):
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
        ({"records_per_user": 4}, "unit must be record, .* or user with a public cap"),
        ({"budget": Budget(3.0, 1e-5, unit="user"), "records_per_user": 0}, "records_per_user must be at least 1"),
        ({"clipping": Flat(0.5)}, "max_grad_norm must be that of the clipping, 0.5, got 1.0"),
        ({"max_grad_norm": None}, "max_grad_norm must be finite"),
        ({"noise": "laplace"}, "noise must be one of gaussian, grid, discrete, correlated"),
        ({"noise": "correlated"}, "coefficients belong to correlated noise"),
        ({"coefficients": (1.0, -0.5)}, "coefficients belong to correlated noise"),
        ({"noise": "correlated", "coefficients": (1.0, -0.5)}, "correlated noise needs steps that are known"),
        (
            {
                "noise": "correlated",
                "coefficients": (1.0, -0.5),
                "sampler": "fixed-order",
                "clipping": AdaptiveQuantile(1.0),
            },
            "one clipping norm for all steps",
        ),
        ({"sampler": "shuffled"}, "sampler must be one of poisson"),
        ({"cap": 300}, "sampler poisson has no cap"),
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


KINDS = [
    {},
    {"sampler": "truncated-poisson", "cap": 330},
    {"sampler": "balls-in-bins"},
    {"sampler": "fixed-order", "order_seed": 7},
    {"sampler": "fixed-order", "noise": "correlated", "coefficients": (1.0, -0.5)},
]


@pytest.mark.parametrize("changes", KINDS)
def test_every_kind_meets_its_budget_by_its_own_accountant(changes):
    plan = _plan(steps=32, **changes)
    assert 0.99 * 3.0 < plan.epsilon <= 3.0
    assert accounting.epsilon(plan.event(), plan.delta - plan.slack_delta) <= plan.epsilon
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.scheme.kind == plan.sampler
    assert plan.divisor == pytest.approx(plan.sampling_rate * plan.n)


def test_no_sampling_needs_more_noise_and_each_kind_has_its_own():
    noise = [_plan(steps=32, **changes).noise_multiplier for changes in KINDS]
    assert len(set(noise)) == len(noise)
    poisson, truncated, _, fixed, moved = noise
    assert poisson < truncated < 1.01 * poisson
    assert 1.5 * poisson < fixed < moved


@pytest.mark.parametrize("sampler", ["fixed-order", "balls-in-bins"])
def test_a_shuffled_loader_with_a_poisson_epsilon_is_impossible(sampler):
    plan = _plan(steps=32)
    other = dataclasses.replace(plan, sampler=sampler, noise_multiplier=0.7 * plan.noise_multiplier)
    assert not isinstance(other.scheme.sampler(bytes(32)), PoissonSampler)
    with pytest.raises(RefusedTraining, match=f"epsilon must be what sampler {sampler} costs"):
        other.guarantee()
    with pytest.raises(RefusedTraining, match="epsilon must be what sampler poisson costs"):
        Plan.from_json({**plan.to_json(), "epsilon": 0.5}).guarantee()


def test_users_are_counted_where_users_are_protected():
    plan = _plan(budget=Budget(3.0, 1e-5, unit="user"), records_per_user=4)
    assert plan.noise_multiplier == _plan().noise_multiplier
    assert str(plan.guarantee().unit) == "user"
    assert plan.guarantee().conditional_on == ("N = 2000 is public", "at most 4 records of a user count in a step")
    with pytest.raises(InvalidBudget, match="N = 2000 users"):
        _plan(budget=Budget(3.0, 6e-4, unit="user"), records_per_user=4)


@pytest.mark.parametrize("clipping", [Flat(0.5), PerLayer(0.5, "width"), Automatic(0.5)])
def test_clipping_that_does_not_count_leaves_the_noise_alone(clipping):
    plan = _plan(clipping=clipping, max_grad_norm=None)
    assert plan.noise_multiplier == _plan().noise_multiplier
    assert plan.noise_deviation == plan.noise_multiplier * 0.5 * (1 + plan.sensitivity_slack)
    assert plan.count_deviation == 0
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_adaptive_clipping_pays_for_its_count():
    """The two releases as vectors in units of their noise: 1/z_sum and (1/2)/count_noise, together 1/z."""
    plan = _plan(clipping=AdaptiveQuantile(1.0, count_noise=12.0))
    on_sum = plan.noise_deviation / (1 + plan.sensitivity_slack)
    assert on_sum > plan.noise_multiplier == _plan().noise_multiplier
    assert math.hypot(1 / on_sum, 0.5 / 12.0) == pytest.approx(1 / plan.noise_multiplier)
    assert plan.noise_deviation_at(0.25) == plan.noise_deviation / 4
    assert plan.count_deviation >= 12.0
    assert plan.noise_per_coordinate == pytest.approx(on_sum / 256)


def test_discrete_noise_costs_what_gaussian_noise_costs_and_depends_on_no_more():
    plan, other = _plan(noise="discrete", variation_per_coordinate=2.0**-112), _plan()
    assert plan.noise_multiplier == other.noise_multiplier
    assert plan.epsilon == other.epsilon
    assert plan.guarantee().conditional_on == ("N = 2000 is public",)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.digest() != other.digest()


def test_what_is_no_set_of_exact_sums_counts_on_both_sides():
    assert sampler_slack(1e-12, 8.0) == pytest.approx(1e-12, rel=1e-4)
    assert sampler_slack(1e-12, 8.0, "discrete") == pytest.approx(1e-12 * (1 + math.exp(8.0)))
    assert variation_per_coordinate("discrete") < variation_per_coordinate("grid") == 2.0**-64
    far = _plan(noise="discrete", variation_per_coordinate=1e-17, budget=Budget(7.0, 1e-5))
    assert far.slack_delta == pytest.approx(1e-17 * 10_000 * 160 * (1 + math.exp(7.0)))


def test_the_count_is_one_more_noisy_value():
    assert values_released(10, None) == values_released(10, Flat(1.0)) == 10
    assert values_released(10, AdaptiveQuantile(1.0)) == 11


def test_discrete_noise_that_fits_no_grid_is_refused():
    with pytest.raises(RefusedTraining, match=r"noise='discrete' needs a grid.*2\^20 cells"):
        _plan(noise="discrete", variation_per_coordinate=2.0**-112, budget=Budget(3.0, 1e-12), size=2**33)


@pytest.mark.parametrize(
    ("sampler", "expected"), [("poisson", 10), ("truncated-poisson", 10), ("balls-in-bins", 12), ("fixed-order", 12)]
)
def test_epochs_are_those_of_the_sampler(sampler, expected):
    assert steps_of(100, 30, 3, None, sampler=sampler) == expected


@pytest.mark.parametrize(
    ("size", "batch", "epochs", "expected"), [(2000, 256, 20, 157), (100, 10, 3, 30), (100, 30, 1, 4), (10, 10, 0.1, 1)]
)
def test_steps_are_rounded_up(size, batch, epochs, expected):
    assert steps_of(size, batch, epochs, None) == expected


@pytest.mark.parametrize("given", [(None, None), (1, 5), (0, None), (None, 0)])
def test_epochs_or_steps_but_not_both(given):
    with pytest.raises(RefusedTraining, match=r"exactly one of epochs and steps|at least one step"):
        steps_of(100, 10, *given)

import pytest
from privkt_fdkt.arms import Arm
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.method import FDKT
from privkt_fdkt.planning import training_plan

from privkt.contracts import PublicFacts
from privkt.privacy import Budget, InvalidBudget, RefusedInput

LABELS = ("negative", "positive")


def config(**changes):
    return FDKTConfig.model_validate({"template": {"control": "Mood: {label}"}} | changes)


def plan(size=2000, epsilon=8.0, delta=1e-5, **changes):
    return FDKT(config(**changes)).plan(PublicFacts("a", size, LABELS), Budget(epsilon, delta))


@pytest.mark.parametrize(
    ("batch", "epochs", "epsilon", "noise"),
    [(2, 1, 3.0, 0.255), (256, 20, 3.0, 0.0095), (256, 20, 8.0, 0.0048), (512, 40, 8.0, 0.0041)],
)
def test_noise_per_coordinate_of_the_page(batch, epochs, epsilon, noise):
    facts = PublicFacts("a", 2000, LABELS)
    found = training_plan(
        config(generator={"batch_size": batch, "epochs": epochs}), facts, Budget(epsilon, 1e-5)
    ).noise_per_coordinate
    assert float(f"{found:.2g}") == pytest.approx(float(f"{noise:.2g}"), abs=1e-9) or found == pytest.approx(
        noise, rel=0.01
    )


def test_a_plan_says_what_the_training_will_be():
    (training,) = plan(generator={"batch_size": 256, "epochs": 20}).trainings
    assert training.sampling_rate == 256 / 2000
    assert training.steps == 157
    assert training.guarantee.epsilon <= 8.0
    assert training.guarantee.replace_one_epsilon > training.guarantee.epsilon
    assert training.noise_per_coordinate == pytest.approx(training.noise_multiplier / 256)


@pytest.mark.parametrize(("batch", "warned"), [(2, True), (256, False)])
def test_mostly_noise_is_warned_of(batch, warned):
    found = plan(epsilon=3.0, generator={"batch_size": batch, "epochs": 1 if warned else 20}).warnings
    assert any("mostly noise" in w for w in found) is warned


def test_a_batch_larger_than_the_data_is_refused_and_its_twin_is_not():
    with pytest.raises(RefusedInput, match=r"batch_size must be at most the declared size 100, got 101"):
        plan(size=100, delta=1e-5, generator={"batch_size": 101})
    assert plan(size=100, delta=1e-5, generator={"batch_size": 100}).trainings


def test_a_delta_of_one_over_n_is_refused():
    with pytest.raises(InvalidBudget):
        plan(delta=1 / 2000)


def test_the_large_models_tokens_are_counted_for_each_arm():
    alone = plan(baselines=[])
    assert alone.llm_requests == 100 + 200
    assert plan(baselines=[], selection=False).llm_requests == 200
    both = plan(baselines=["no-selection", "zero-shot"])
    assert both.llm_requests == 100 + 3 * 200
    assert alone.llm_prompt_tokens < both.llm_prompt_tokens < 3 * alone.llm_prompt_tokens
    assert alone.llm_new_tokens == 100 * 24 + 200 * 64


def test_what_crosses_and_what_is_not_covered_is_said():
    found = plan(baselines=["raw-demonstrations"])
    assert "400 synthetic texts" in found.crosses[0]
    assert any("not private" in line for line in found.not_covered)
    assert any(line.startswith("if the generator computes in half precision") for line in found.not_covered)
    assert any("outside the epsilon" in line for line in found.not_covered)
    assert any("raw-demonstrations" in line for line in found.not_covered)
    assert found.bytes_out > 400 * 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"max_tokens": 8}, "hardly fits"), ({"generator": {"epochs": 0.1, "batch_size": 200}}, "1 steps are few")],
)
def test_unpromising_settings_are_warned_of(changes, said):
    assert any(said in w for w in plan(**changes).warnings)


def test_arms_are_listed_once_in_the_order_of_tables():
    assert config(baselines=["private+synthetic", "private", "private"]).arms == (
        Arm.PRIVATE, Arm.PRIVATE_SYNTHETIC, Arm.FDKT,
    )  # fmt: skip
    assert Arm.NO_SELECTION not in config(baselines=["no-selection"], selection=False).arms


@pytest.mark.parametrize("weights", [[], [0.0], [1.5], [-1.0]])
def test_weights_outside_zero_and_one_are_refused(weights):
    with pytest.raises(ValueError, match=r"at least one weight in \(0, 1\]"):
        config(slm={"weights": weights})

"""What a run will spend, ask and send, from declared numbers alone."""

from __future__ import annotations

from dataclasses import replace

from privkt.contracts import Plan, PublicFacts, StatisticPlan, TrainingPlan
from privkt.plugins import get_manager
from privkt.privacy import (
    Budget,
    RefusedInput,
    event_to_json,
    pure_event,
)
from privkt.privacy.guarantee import HALF_PRECISION, rounded_up
from privkt.synthesis.planning import plan_training
from privkt.synthesis.token_claims import need_draws_tokens
from privkt_post import counting
from privkt_post.config import InferenceConfig, POSTConfig

PURPOSE = "post: tune the prompt"
MOSTLY_NOISE = 0.05
_BYTES_A_NUMBER = 4
_ASSUMED_WIDTH = 1024


def tuning_budget(config: POSTConfig, budget: Budget) -> Budget:
    """What is left of the run's epsilon for the prompt, once the counts are paid.

    Raises: RefusedInput, if nothing is left.
    """
    spent = counting.shares_of(config, budget.neighbouring).total
    if spent >= budget.epsilon:
        raise RefusedInput(
            f"post.statistic.epsilon must be below the budget's {budget.epsilon:g}, got {spent:g}; lower it"
        )
    return replace(budget, epsilon=budget.epsilon - spent)


def training_plan(config: POSTConfig, facts: PublicFacts, budget: Budget) -> TrainingPlan:
    """The one private training, the prompt's.

    Raises: RefusedInput, for a batch larger than the declared data, or another unit than records; InvalidBudget, for an
        impossible delta.
    """
    budget = tuning_budget(config, budget)
    return plan_training(config.tuning, facts, budget, purpose=PURPOSE, where="post.tuning")


def statistic_plan(config: POSTConfig, budget: Budget) -> StatisticPlan:
    """The noisy counts."""
    shares = counting.shares_of(config, budget.neighbouring)
    facts = []
    if shares.each:
        facts.append(f"two counts of correct answers, each at epsilon = {rounded_up(shares.each)}")
    if shares.vote:
        facts.append(
            f"votes for {len(config.transfer.public)} public sets, each count at epsilon = {rounded_up(shares.vote)}"
        )
    guarantee = counting.guarantee_of(config, budget)
    return StatisticPlan(
        counting.PURPOSE, "geometric", guarantee, event_to_json(pure_event(guarantee.epsilon)), tuple(facts)
    )


def make_plan(config: POSTConfig, facts: PublicFacts, budget: Budget) -> Plan:
    """One client's plan: what it spends and what crosses. Raises RefusedInput, for other units than records."""
    counting.need_records(budget)
    training = training_plan(config, facts, budget) if config.tuning.private else None
    rows = config.prompt.tokens
    crosses = [f"client to server: one soft prompt of {rows} rows"]
    if config.counts:
        crosses.append("client to server: noisy counts, as many as settings say")
    else:
        crosses.append("client to server: an empty table, where noisy counts would stand")
    crosses.append(
        "server to client: name and digest of the small model, digest and width of the large one, and a soft prompt of "
        "it"
    )
    return Plan(
        trainings=() if training is None else (training,),
        statistics=(statistic_plan(config, budget),) if config.counts else (),
        bytes_out=rows * _ASSUMED_WIDTH * _BYTES_A_NUMBER,
        shared=True,
        crosses=tuple(crosses),
        not_covered=tuple(_not_covered(config)),
        warnings=tuple(_warnings(config, facts, training)),
    )


def _not_covered(config: POSTConfig) -> list[str]:
    found = [
        f"if the small model computes in half precision, its guarantee is conditional on: {HALF_PRECISION}",
        "settings chosen by looking at results on the private data are outside the epsilon",
        "labels, label words, cue, the declared size and the prompt's length are public",
        "scores of the arms, membership attacks and a prompt tuned on the large model stay at the client",
    ]
    inference = config.inference
    if inference.mechanism is None:
        found.append(
            "texts that are labelled later: where the large model runs elsewhere they go there in clear, which no "
            "guarantee covers (inference.mechanism perturbs them)"
        )
    else:
        found.append(f"texts that are labelled later are another data set: {_query(inference)}")
    if not config.tuning.private:
        found.append("the prompt itself: tuning.private is false, so it promises nothing")
    return found


def _query(inference: InferenceConfig) -> str:
    """What a text that is labelled later costs, as far as it is known before the vocabulary is read."""
    assert inference.mechanism is not None
    need_draws_tokens("post.inference.mechanism", inference.mechanism)
    manager = get_manager()
    manager.check("mechanism", inference.mechanism, None, inference.epsilon, **inference.options)
    spec = manager.find("mechanism", inference.mechanism).spec
    if str(getattr(spec, "guarantee", "none")) == "none":
        return f"perturbed by {inference.mechanism}, which promises nothing"
    if inference.options.get("calibrate", "exact") not in ("exact", "range"):
        return (
            f"perturbed by {inference.mechanism}, each costs {inference.tokens} times the certificate of its law, "
            "which the report says and which epsilon does not bound with this calibration"
        )
    whole = inference.tokens * inference.epsilon
    return (
        f"perturbed, each costs at most epsilon = {rounded_up(whole)} ({inference.tokens} tokens at "
        f"{inference.epsilon:g}), and a person with {inference.queries} of them {rounded_up(inference.queries * whole)}"
    )


def _warnings(config: POSTConfig, facts: PublicFacts, training: TrainingPlan | None) -> list[str]:
    found = []
    if config.task.calibrate and facts.roles is not None and "local_target" not in facts.roles:
        found.append(
            "task.calibrate without the role `local_target`: the large model's constants are taken behind the "
            "transferred prompt by the run itself, so that this one hands over a prompt without them, and `privkt "
            "predict` cannot use it; add the role"
        )
    if config.transfer.choose != "first" and len(config.transfer.public) == 1:
        found.append(f"transfer.choose: {config.transfer.choose} has one public set to choose from")
    if config.task.calibrate and config.transfer.variant != "inference" and config.transfer.match != "words":
        found.append(
            "task.calibrate over a whole vocabulary gives rare tokens the weight of frequent ones in the transfer; set "
            "transfer.match: words"
        )
    if training is None:
        found.append("the prompt is tuned without privacy, and leaves only to models of this process or public data")
        return found
    noise = training.noise_per_coordinate
    if noise > MOSTLY_NOISE:
        found.append(
            f"noise per coordinate of the mean gradient is {noise:.2g} clip norms, above {MOSTLY_NOISE}: the prompt "
            "will learn mostly noise; raise tuning.batch_size and tuning.epochs, or use more data"
        )
    if training.steps < 8:
        found.append(f"{training.steps} steps are few for a prompt; raise tuning.epochs")
    return found

"""One private training, planned from declared numbers alone; shared by methods whose only spend is a fine-tune."""

from __future__ import annotations

import math
from typing import Protocol

from privkt.contracts import ClientSite, Privacy, PublicFacts, TrainingPlan
from privkt.privacy import (
    Budget,
    Guarantee,
    Kind,
    Neighbouring,
    RefusedInput,
    Unit,
    calibrate_noise,
    epsilon,
    noise_per_coordinate,
    poisson_gaussian_event,
    replace_one_epsilon,
    sampler_share,
)

MOSTLY_NOISE = 0.05


class Passes(Protocol):
    """What a training's price follows from: how often it passes over the data, in batches of what size."""

    @property
    def epochs(self) -> float: ...

    @property
    def batch_size(self) -> int: ...


def plan_training(recipe: Passes, facts: PublicFacts, budget: Budget, *, purpose: str, where: str) -> TrainingPlan:
    """Noise, steps and epsilon of a fine-tune with Poisson batches; `where` is the recipe's place in the config.

    Guarantee: the epsilon is that of all steps together, ceil(epochs * N / batch_size), however they are spread over
        rounds, restarts or epochs.
    Raises: RefusedInput, for a batch larger than the declared data, or a unit or relation that such a training does not
        protect; InvalidBudget, for an impossible delta.
    """
    if budget.unit is not Unit.RECORD or budget.neighbouring is Neighbouring.LOCAL:
        raise RefusedInput(
            "budget: a private training counts every row by itself, between data sets that differ in one; unit must be "
            f"record and the relation zero-out, add-remove or replace-one, got {budget.unit} and {budget.neighbouring}"
        )
    if recipe.batch_size > facts.size:
        raise RefusedInput(
            f"{where}.batch_size must be at most the declared size {facts.size}, got {recipe.batch_size}; "
            "lower it or declare more data"
        )
    budget.validate_for(facts.size)
    steps = max(1, math.ceil(recipe.epochs * facts.size / recipe.batch_size - 1e-9))
    rate = recipe.batch_size / facts.size
    spendable = budget.delta - sampler_share(budget.delta)
    noise = calibrate_noise(budget.epsilon, spendable, rate, steps, budget.neighbouring)
    event = poisson_gaussian_event(noise, rate, steps)
    guarantee = Guarantee(
        Kind.APPROXIMATE,
        epsilon(event, spendable, budget.neighbouring),
        budget.delta,
        unit=budget.unit,
        neighbouring=budget.neighbouring,
        conditional_on=(f"N = {facts.size} is public",),
        proof="docs/proofs/dpsgd.md",
        replace_one_epsilon=replace_one_epsilon(event, spendable),
    )
    return TrainingPlan(
        purpose=purpose,
        noise_multiplier=noise,
        sampling_rate=rate,
        steps=steps,
        delta=budget.delta,
        guarantee=guarantee,
        noise_per_coordinate=noise_per_coordinate(noise, rate, facts.size),
    )


def training_warnings(training: TrainingPlan, where: str) -> list[str]:
    """What its numbers say against a planned training; `where` is the recipe's key."""
    found = []
    noise = training.noise_per_coordinate
    if noise > MOSTLY_NOISE:
        found.append(
            f"noise per coordinate of the mean gradient is {noise:.2g} clip norms, above {MOSTLY_NOISE}: the model "
            f"will learn mostly noise; raise {where}.batch_size and {where}.epochs, or use more data"
        )
    if training.steps < 8:
        found.append(f"{training.steps} steps are few for a fine-tune; raise {where}.epochs")
    return found


def privacy_of(site: ClientSite, purpose: str) -> Privacy:
    """What makes a training at this site a private one, with all of the site's budget."""
    return Privacy(
        budget=site.budget,
        size=site.data.size,
        run_id=site.run_id,
        purpose=purpose,
        fingerprint=site.data.fingerprint,
        data_set_id=site.data_set_id,
        data_changed=site.data.data_changed,
    )

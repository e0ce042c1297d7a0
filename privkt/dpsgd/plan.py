"""What is fixed before any private data is read: noise, sampling rate, steps, and what they cost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from privkt import kernels
from privkt.dpsgd.errors import RefusedTraining
from privkt.privacy import accounting
from privkt.privacy.budget import Budget
from privkt.privacy.guarantee import (
    HALF_PRECISION,
    SAMPLER_SHARE,
    Guarantee,
    Kind,
    Neighbouring,
    Unit,
    sampler_share,
)

_CROSS_SAMPLE, _CROSS_SAMPLE_A_ROW = 2.0**-10, 2.0**-21
_NOT_OF_THE_SUM = 2.0**-26  # csrc/include/privkt/gaussian.h
_MOST_SAMPLER_SHARE = SAMPLER_SHARE
PROOF = "docs/proofs/dpsgd.md"


@dataclass(frozen=True)
class Plan:
    """One DP-SGD training, from declared numbers alone.

    Units: `noise_multiplier` is the accounted one; the noise added has standard deviation
        noise_multiplier * max_grad_norm * (1 + sensitivity_slack) on the sum, which is divided by sampling_rate * n.
    Guarantee: `epsilon` at `delta` for `event()`, with `slack_delta` of delta kept for the noise sampler's distance
        from a Gaussian. `sensitivity_slack` covers the rounding of sums (docs/proofs/dpsgd.md, "Rounding").
    """

    n: int
    batch_size: int
    steps: int
    sampling_rate: float
    noise_multiplier: float
    max_grad_norm: float
    epsilon: float
    delta: float
    replace_one_epsilon: float
    noise_per_coordinate: float
    microbatch_size: int
    coordinates: int
    slack_delta: float
    sensitivity_slack: float
    unit: str = "record"
    neighbouring: str = "zero-out"
    sampler: str = "poisson"
    half_precision: bool = False

    def event(self) -> Any:
        """The dp-accounting event of the whole training."""
        return accounting.poisson_gaussian_event(self.noise_multiplier, self.sampling_rate, self.steps)

    def guarantee(self) -> Guarantee:
        """What the finished training promises."""
        return Guarantee(
            Kind.APPROXIMATE,
            self.epsilon,
            self.delta,
            unit=Unit(self.unit),
            neighbouring=Neighbouring(self.neighbouring),
            conditional_on=(f"N = {self.n} is public", *([HALF_PRECISION] if self.half_precision else [])),
            proof=PROOF,
            replace_one_epsilon=self.replace_one_epsilon,
        )

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on one coordinate of the clipped sum."""
        return self.noise_multiplier * self.max_grad_norm * (1 + self.sensitivity_slack)

    @property
    def divisor(self) -> float:
        """q * N: public, never the drawn batch."""
        return float(self.batch_size)

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` accepts."""
        values = dataclasses.asdict(self)
        return {**values, "replace_one_epsilon": "inf"} if math.isinf(self.replace_one_epsilon) else values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        return cls(**{**values, "replace_one_epsilon": float(values["replace_one_epsilon"])})

    def digest(self) -> str:
        """A name of this plan: a hash of public numbers."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def steps_of(size: int, batch_size: int, epochs: float | None, steps: int | None) -> int:
    """ceil(epochs * size / batch_size), or the given number of steps; exactly one of the two is named."""
    if (epochs is None) == (steps is None):
        raise RefusedTraining(
            f"PrivateTraining: exactly one of epochs and steps must be given, got epochs={epochs}, steps={steps}; "
            "name one"
        )
    count = steps if steps is not None else math.ceil(float(epochs) * size / batch_size - 1e-9)  # type: ignore[arg-type]
    if count < 1:
        raise RefusedTraining(f"PrivateTraining: there must be at least one step, got {count}; raise epochs or steps")
    return count


def make_plan(
    budget: Budget,
    *,
    size: int,
    batch_size: int,
    steps: int,
    max_grad_norm: float,
    microbatch_size: int,
    coordinates: int,
    variation_per_coordinate: float,
    half_precision: bool = False,
) -> Plan:
    """Calibrates the noise to `budget`.

    Units: variation_per_coordinate: total variation between one sampled noise value and a Gaussian one.
    Edge cases: with `half_precision` layers the guarantee is conditional: rounding of other samples by 2^-8 is outside
        the slack of the sensitivity, and batches of one public shape are what should keep it from happening.
    Raises: RefusedTraining or InvalidBudget, for numbers that no training may have.
    """
    if not 1 <= batch_size <= size:
        raise RefusedTraining(
            f"PrivateTraining: the expected batch must lie between 1 and N = {size}, got {batch_size}; lower "
            "batch_size or use more data"
        )
    if not (math.isfinite(max_grad_norm) and max_grad_norm > 0):
        raise RefusedTraining(
            f"PrivateTraining: max_grad_norm must be finite and > 0, got {max_grad_norm}; 1.0 is usual"
        )
    budget.validate_for(size)
    if budget.unit is not Unit.RECORD:
        raise RefusedTraining(
            f"PrivateTraining: the unit must be record, one row of the data set each, got {budget.unit}; declare "
            "unit: record"
        )
    if budget.neighbouring is Neighbouring.LOCAL:
        raise RefusedTraining("PrivateTraining: the relation must be zero-out, add-remove or replace-one, got local")
    sampler = variation_per_coordinate * coordinates * steps
    if not sampler < _MOST_SAMPLER_SHARE * budget.delta:
        raise RefusedTraining(
            f"PrivateTraining: the noise sampler's distance from a Gaussian must stay below {_MOST_SAMPLER_SHARE:g} of "
            f"delta, got {sampler:.3g} of {budget.delta:.3g} for {coordinates} values and {steps} steps; train fewer "
            "parameters or take fewer steps"
        )
    # Never below the share that plans made without knowing the number of trainable values reserve: they agree then.
    slack_delta = max(sampler_slack(sampler, budget.epsilon), sampler_share(budget.delta))
    slack = cross_sample_slack(batch_size) + kernels.sum_slack(
        size, size, torch.float64
    )  # at most N rows, in at most N calls
    rate = batch_size / size
    noise = accounting.calibrate_noise(
        budget.epsilon, budget.delta, rate, steps, budget.neighbouring, slack_delta=slack_delta
    )
    event = accounting.poisson_gaussian_event(noise, rate, steps)
    return Plan(
        n=size,
        batch_size=batch_size,
        steps=steps,
        sampling_rate=rate,
        noise_multiplier=noise,
        max_grad_norm=float(max_grad_norm),
        epsilon=accounting.epsilon(event, budget.delta - slack_delta, budget.neighbouring),
        delta=budget.delta,
        replace_one_epsilon=_replace_one_epsilon(event, budget.delta, slack_delta, sampler),
        noise_per_coordinate=accounting.noise_per_coordinate(noise, rate, size),
        microbatch_size=microbatch_size,
        coordinates=coordinates,
        slack_delta=slack_delta,
        sensitivity_slack=slack,
        unit=str(budget.unit),
        neighbouring=str(budget.neighbouring),
        half_precision=half_precision,
    )


def cross_sample_slack(batch_size: int) -> float:
    """What one record's presence may move the rounding of all other rows of its batch by, in units of the clip norm.

    About 2e-7 a row, if all errors point one way; twice the expected batch is room for a large draw
    (docs/proofs/dpsgd.md, "Rounding").
    """
    return max(_CROSS_SAMPLE, batch_size * _CROSS_SAMPLE_A_ROW)


def sampler_slack(sampler: float, epsilon: float) -> float:
    """What the sampler takes from delta at `epsilon`, of its total variation over a whole training.

    It counts once, but for a share of 2^-26 that is not a set of exact sums and counts e^epsilon times as well
    (docs/proofs/dpsgd.md, "Noise").
    """
    return sampler * (1 + _NOT_OF_THE_SUM * math.exp(min(epsilon, 700.0)))


def _replace_one_epsilon(event: Any, delta: float, slack_delta: float, sampler: float) -> float:
    """Epsilon at `delta` for replacing a record; its own slack where that is larger, infinity where it takes all."""
    found = accounting.replace_one_epsilon(event, delta - slack_delta)
    while sampler_slack(sampler, found) > slack_delta:
        slack_delta = 1.01 * sampler_slack(sampler, found)
        if slack_delta >= delta:
            return math.inf
        found = accounting.replace_one_epsilon(event, delta - slack_delta)
    return found

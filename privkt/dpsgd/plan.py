"""What is fixed before any private data is read: draws, clipping, noise, steps, and what they cost."""

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
from privkt.dpsgd.clipping import AdaptiveQuantile, Clipping, Flat, clipping_from_json
from privkt.dpsgd.errors import RefusedTraining
from privkt.dpsgd.schemes import INDEPENDENT, Coefficients, Poisson, Scheme, TruncatedPoisson, scheme_of
from privkt.dpsgd.slacks import cross_sample_slack, replace_one_epsilon, sampler_slack
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

_MOST_SAMPLER_SHARE = SAMPLER_SHARE
_TOLERANCE = 1e-9  # relative; two accountants' rounding, never a promise
NOISES = ("gaussian", "grid", "discrete", "correlated")
UNCERTIFIED_SUMS = "sums of several noise values are rounded in floating point, which no proof here covers"
UNCERTIFIED_COUNT = (
    "no record near the clipping norm is counted otherwise because another's presence rounds it otherwise"
)
PROOF = "docs/proofs/dpsgd.md"
COUNT_NORM = 0.5  # how far one unit moves the count of AdaptiveQuantile


@dataclass(frozen=True)
class Design:
    """A plan without its noise: what `accounting.calibrate` looks for the noise of."""

    scheme: Scheme
    steps: int
    coefficients: Coefficients = INDEPENDENT

    def event(self, noise_multiplier: float) -> Any:
        """The dp-accounting event of the whole training with this noise."""
        return self.scheme.event(noise_multiplier, self.steps, self.coefficients)


@dataclass(frozen=True)
class Plan:
    """One DP-SGD training, from declared numbers alone.

    Units: `n`, `batch_size`, `cap` and delta count units: records, or users of at most `records_per_user` records.
        `noise_multiplier` is the accounted one; the noise added has standard deviation
        noise_multiplier * max_grad_norm * (1 + sensitivity_slack) on the sum, more where a count takes a part of the
        budget, and the sum is divided by the public `divisor`.
    Guarantee: `epsilon` at `delta` for `event()`, with `slack_delta` of delta kept for the noise sampler's distance
        from a Gaussian. `sensitivity_slack` covers the rounding of sums (docs/proofs/dpsgd.md, "Rounding"). The event
        is that of `sampler`, whatever epsilon is written here: a plan whose epsilon is below its event's promises
        nothing, as `guarantee` refuses.
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
    cap: int | None = None
    order_seed: int | None = None
    clipping: Clipping | None = None
    noise: str = "gaussian"
    coefficients: Coefficients = INDEPENDENT
    records_per_user: int | None = None

    def __post_init__(self) -> None:
        if self.clipping is None:
            object.__setattr__(self, "clipping", Flat(self.max_grad_norm))
        object.__setattr__(self, "coefficients", tuple(float(a) for a in self.coefficients))

    @property
    def scheme(self) -> Scheme:
        """How units are drawn; the only maker of this plan's sampler."""
        return scheme_of(self.sampler, self.n, self.batch_size, cap=self.cap, seed=self.order_seed)

    def event(self) -> Any:
        """The dp-accounting event of the whole training."""
        return Design(self.scheme, self.steps, self.coefficients).event(self.noise_multiplier)

    def guarantee(self) -> Guarantee:
        """What the finished training promises.

        Raises: RefusedTraining, for an epsilon that was not computed from this plan's own sampler and noise.
        """
        needed = accounting.epsilon(self.event(), self.delta - self.slack_delta, Neighbouring(self.neighbouring))
        if not self.epsilon >= needed * (1 - _TOLERANCE):
            raise RefusedTraining(
                f"Plan: epsilon must be what sampler {self.sampler} costs, {needed:.6g}, got {self.epsilon:.6g}; make "
                "the plan with make_plan"
            )
        conditions = [f"N = {self.n} is public"]
        if self.records_per_user is not None:
            conditions.append(f"at most {self.records_per_user} records of a user count in a step")
        if self.noise == "correlated":
            conditions.append(UNCERTIFIED_SUMS)
        if isinstance(self.clipping, AdaptiveQuantile):
            conditions.append(UNCERTIFIED_COUNT)
        if self.half_precision:
            conditions.append(HALF_PRECISION)
        return Guarantee(
            Kind.APPROXIMATE,
            self.epsilon,
            self.delta,
            unit=Unit(self.unit),
            neighbouring=Neighbouring(self.neighbouring),
            conditional_on=tuple(conditions),
            proof=PROOF,
            replace_one_epsilon=self.replace_one_epsilon,
        )

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on one coordinate of the clipped sum (of z_t, where noise is correlated)."""
        return self.noise_deviation_at(self.max_grad_norm)

    def noise_deviation_at(self, norm: float) -> float:
        """The same for another sensitivity of the sum, where clipping adapts it."""
        return self._split[0] * norm * (1 + self.sensitivity_slack)

    @property
    def count_deviation(self) -> float:
        """Standard deviation of the noise on the count of clipped samples; 0 where none is counted."""
        return self._split[1] * (1 + self.sensitivity_slack)

    @property
    def _split(self) -> tuple[float, float]:
        assert self.clipping is not None
        return self.clipping.noise_split(self.noise_multiplier)

    @property
    def divisor(self) -> float:
        """The expected draw, q * N: public, never the realised one."""
        return self.scheme.divisor

    def to_json(self) -> dict[str, Any]:
        """A mapping that `json.dumps` accepts."""
        assert self.clipping is not None
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"clipping": self.clipping.to_json(), "coefficients": list(self.coefficients)}
        return {**values, "replace_one_epsilon": "inf"} if math.isinf(self.replace_one_epsilon) else values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        read = {"replace_one_epsilon": float(values["replace_one_epsilon"])}
        return cls(**{**values, **read, "clipping": clipping_from_json(values["clipping"])})

    def digest(self) -> str:
        """A name of this plan: a hash of public numbers."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def steps_of(
    size: int, batch_size: int, epochs: float | None, steps: int | None, *, sampler: str = Poisson.kind
) -> int:
    """Steps of so many passes by this kind of sampler, rounded up, or the given number; exactly one of them is named.

    Poisson kinds make a pass of size / batch_size steps; those with epochs of ceil(size / batch_size).
    """
    if (epochs is None) == (steps is None):
        raise RefusedTraining(
            f"PrivateTraining: exactly one of epochs and steps must be given, got epochs={epochs}, steps={steps}; "
            "name one"
        )
    if steps is not None:
        count = steps
    else:
        assert epochs is not None
        whole = scheme_of(sampler, size, batch_size, cap=size if sampler == TruncatedPoisson.kind else None)
        count = whole.steps_of(epochs)
    if count < 1:
        raise RefusedTraining(f"PrivateTraining: there must be at least one step, got {count}; raise epochs or steps")
    return count


def make_plan(
    budget: Budget,
    *,
    size: int,
    batch_size: int,
    steps: int,
    max_grad_norm: float | None = None,
    microbatch_size: int,
    coordinates: int,
    variation_per_coordinate: float,
    half_precision: bool = False,
    sampler: str = Poisson.kind,
    cap: int | None = None,
    order_seed: int | None = None,
    clipping: Clipping | None = None,
    noise: str = "gaussian",
    coefficients: Coefficients = INDEPENDENT,
    records_per_user: int | None = None,
) -> Plan:
    """Calibrates the noise to `budget`.

    Units: variation_per_coordinate: total variation between one sampled noise value and a Gaussian one. `size`,
        `batch_size` and `cap` count units: users, where `records_per_user` is given.
    Edge cases: with `half_precision` layers the guarantee is conditional: rounding of other samples by 2^-8 is outside
        the slack of the sensitivity, and batches of one public shape are what should keep it from happening. Without
        `clipping`, each sample is clipped to `max_grad_norm`. An epoch that `steps` leave unfinished is charged whole.
    Raises: RefusedTraining or InvalidBudget, for numbers that no training may have.
    """
    scheme = scheme_of(sampler, size, batch_size, cap=cap, seed=order_seed)
    clipping = _need_clipping(clipping, max_grad_norm)
    budget.validate_for(size)
    _need_unit(budget, records_per_user)
    design = Design(scheme, steps, _need_noise(noise, coefficients, clipping))
    distance = variation_per_coordinate * values_released(coordinates, clipping) * steps
    if not distance < _MOST_SAMPLER_SHARE * budget.delta:
        raise RefusedTraining(
            f"PrivateTraining: the noise sampler's distance from a Gaussian must stay below {_MOST_SAMPLER_SHARE:g} of "
            f"delta, got {distance:.3g} of {budget.delta:.3g} for {coordinates} values and {steps} steps; train fewer "
            "parameters or take fewer steps"
        )
    # Never below the share that plans made without knowing the number of trainable values reserve: they agree then.
    slack_delta = max(sampler_slack(distance, budget.epsilon, noise), sampler_share(budget.delta))
    if not slack_delta < budget.delta:
        raise RefusedTraining(
            f"PrivateTraining: epsilon = {budget.epsilon:g} is so large that the noise sampler's distance from a law, "
            f"which may count e^epsilon times, takes the whole delta of {budget.delta:g}; "
            "ask for a smaller epsilon, or train fewer values"
        )
    slack = cross_sample_slack(batch_size) + kernels.sum_slack(
        size, size, torch.float64
    )  # at most N rows, in at most N calls
    multiplier = accounting.calibrate(
        budget.epsilon, budget.delta, design, budget.neighbouring, slack_delta=slack_delta
    )
    event = design.event(multiplier)
    plan = Plan(
        n=size,
        batch_size=batch_size,
        steps=steps,
        sampling_rate=scheme.rate,
        noise_multiplier=multiplier,
        max_grad_norm=float(clipping.max_grad_norm),
        epsilon=accounting.epsilon(event, budget.delta - slack_delta, budget.neighbouring),
        delta=budget.delta,
        replace_one_epsilon=replace_one_epsilon(event, budget.delta, slack_delta, distance, noise),
        noise_per_coordinate=accounting.noise_per_coordinate(clipping.noise_split(multiplier)[0], scheme.rate, size),
        microbatch_size=microbatch_size,
        coordinates=coordinates,
        slack_delta=slack_delta,
        sensitivity_slack=slack,
        unit=str(budget.unit),
        neighbouring=str(budget.neighbouring),
        sampler=sampler,
        half_precision=half_precision,
        cap=cap,
        order_seed=order_seed,
        clipping=clipping,
        noise=noise,
        coefficients=design.coefficients,
        records_per_user=records_per_user,
    )
    if noise == "discrete":
        _need_grid(plan)
    return plan


def values_released(coordinates: int, clipping: Clipping | None) -> int:
    """Noisy values a step: one a coordinate, and the count where there is one."""
    return coordinates + isinstance(clipping, AdaptiveQuantile)


def _need_grid(plan: Plan) -> None:
    """Discrete noise must fit its generator on a grid that is fine enough, for the sum and for the count."""
    try:
        kernels.discrete_grid(plan.max_grad_norm, plan.n, plan.noise_deviation)
        kernels.discrete_grid(COUNT_NORM, plan.n, plan.count_deviation)
    except ValueError as error:
        raise RefusedTraining(f"PrivateTraining: noise='discrete' needs a grid, got none ({error})") from None


def _need_clipping(clipping: Clipping | None, max_grad_norm: float | None) -> Clipping:
    if clipping is not None:
        if max_grad_norm not in (None, clipping.max_grad_norm):
            raise RefusedTraining(
                f"PrivateTraining: max_grad_norm must be that of the clipping, {clipping.max_grad_norm}, got "
                f"{max_grad_norm}; name one of them"
            )
        return clipping
    if max_grad_norm is None or not (math.isfinite(max_grad_norm) and max_grad_norm > 0):
        raise RefusedTraining(
            f"PrivateTraining: max_grad_norm must be finite and > 0, got {max_grad_norm}; 1.0 is usual"
        )
    return Flat(float(max_grad_norm))


def _need_unit(budget: Budget, records_per_user: int | None) -> None:
    counted = Unit.RECORD if records_per_user is None else Unit.USER
    if budget.unit is not counted:
        raise RefusedTraining(
            "PrivateTraining: the unit must be record, one row of the data set each, or user with a public cap on the "
            f"records of each, got {budget.unit} with records_per_user={records_per_user}; declare unit: {counted}"
        )
    if records_per_user is not None and records_per_user < 1:
        raise RefusedTraining(f"PrivateTraining: records_per_user must be at least 1, got {records_per_user}")
    if budget.neighbouring is Neighbouring.LOCAL:
        raise RefusedTraining("PrivateTraining: the relation must be zero-out, add-remove or replace-one, got local")


def _need_noise(noise: str, coefficients: Coefficients, clipping: Clipping) -> Coefficients:
    """The coefficients, if this kind of noise has them.

    A clipping norm that moves would weigh the steps of correlated noise differently: no sensitivity is known for it.
    """
    found = tuple(float(a) for a in coefficients)
    if noise not in NOISES:
        raise RefusedTraining(f"PrivateTraining: noise must be one of {', '.join(NOISES)}, got {noise!r}")
    if (found == INDEPENDENT) == (noise == "correlated"):
        raise RefusedTraining(
            "PrivateTraining: coefficients belong to correlated noise and to it alone, got "
            f"{len(found)} for noise {noise}; see privkt.privacy.correlated"
        )
    if noise == "correlated" and isinstance(clipping, AdaptiveQuantile):
        raise RefusedTraining(
            "PrivateTraining: correlated noise needs one clipping norm for all steps, got adaptive clipping; use flat"
        )
    return found

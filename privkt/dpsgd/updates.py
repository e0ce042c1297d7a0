"""What a private batch does to the weights: the user's optimizer, in one pass with the noise where that is possible."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from privkt import kernels
from privkt.dpsgd.account import weights_digest
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.layout import Layout
from privkt.dpsgd.mechanism import NoisyMean
from privkt.kernels.optimizers import why_not

BIAS_FLOOR = 0.01  # least share of the noise's variance that stays of Adam's second moment


class Update:
    """One optimizer step on the noisy mean.

    Two ways, which differ by float32 rounding of the optimizer's own arithmetic (a few units in the last place) and by
    nothing else: the same noise, state and settings. `why_unfused` says which one and is decided anew at each step from
    the optimizer and the plan alone, so a resumed training goes the way of the first.
      - fused: sum, noise, mean, optimizer state and weight in one pass, stretch by stretch; no mean, no .grad;
      - otherwise: the mean becomes .grad, and optimizer.step() runs as it is.
    Guarantee: nothing but the noisy mean moves a weight; `still` rows of the layout have gradient 0.
    Raises: RefusedTraining, for `noise_bias_correction` where the update is not fused or the optimizer is not Adam.
    References: Tang, Shpilevskiy, Lécuyer 2024, "DP-AdamBC" (arXiv 2312.14334).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        layout: Layout,
        mean: NoisyMean,
        *,
        several: bool = False,
        coefficients: int = 1,
        noise_bias_correction: bool = False,
    ) -> None:
        self._optimizer, self._layout, self._mean = optimizer, layout, mean
        self._several, self._coefficients = several, coefficients
        self._corrected = noise_bias_correction
        self.moved = False  # whether weights are known to move
        self._still: dict[nn.Parameter, list[Any]] = {}  # rows, or what else indexes the parameter
        for slot, place in layout.still:
            self._still.setdefault(slot.parameter, []).append(place)
        if noise_bias_correction:
            self._need_correction()

    def why_unfused(self) -> str:
        """Why noise and optimizer are not one pass; empty where they are."""
        if self._several:
            return "several processes share one mean"
        if self._coefficients > 1:
            return "correlated noise is a sum of several values"
        if any(parameter.dtype != torch.float32 for _, parameter in self._layout.named()):
            return "parameters must be float32"
        if not all(isinstance(place, int) for places in self._still.values() for place in places):
            return "a padding vector is a column of its parameter"
        if not kernels.runs_on("adam_update", self._layout.device):
            return f"this build has no update steps for {self._layout.device.type}"
        return why_not(self._optimizer)

    def step(self, last: SampleGradients) -> None:
        """Sums the last microbatch, adds the noise, moves the weights.

        Raises: TrainingError, if the first step with a learning rate above 0 moves nothing.
        """
        before = None if self.moved else weights_digest(self._layout.named())
        rates = [float(group.get("lr", 1.0)) for group in self._optimizer.param_groups]
        self._optimizer.zero_grad(set_to_none=True)  # nothing but the noisy mean may move a weight
        if self._corrected:
            self._need_correction()
        if not self.why_unfused():
            floor = BIAS_FLOOR if self._corrected else None
            self._mean.step_(self._optimizer, self._layout.slots, self._still, last, bias_floor=floor)
        else:
            gradient = self._mean.take(last)
            for slot, part in self._layout.split(gradient):
                slot.parameter.grad = part.to(slot.parameter.dtype)
            for parameter, places in self._still.items():
                assert parameter.grad is not None
                for place in places:
                    parameter.grad[place] = 0
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        if before is not None and any(rates):
            if weights_digest(self._layout.named()) == before:
                raise TrainingError(
                    "PrivateTraining: the first step must move the trainable weights, got none moved; give the "
                    "optimizer the parameters that the model uses now, with a learning rate that their dtype can hold"
                )
            self.moved = True

    def _need_correction(self) -> None:
        reason = self.why_unfused()
        if not reason and isinstance(self._optimizer, torch.optim.SGD):
            reason = "SGD has no second moment"
        if reason:
            raise RefusedTraining(
                "PrivateTraining: noise_bias_correction needs torch's Adam or AdamW, fused with the noise, got none: "
                f"{reason}; leave the correction out, or change that"
            )

"""Opacus' ghost clipping: norms in a first backward pass, the weighted sum in a second one."""

from __future__ import annotations

from torch import nn

from ..models import Batch, logits_of, losses_of
from .base import Contender, Setting


class OpacusGhost(Contender):
    """GradSampleModuleFastGradientClipping and its optimizer."""

    name = "opacus ghost"
    package = "opacus"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        self.wrapped = GradSampleModuleFastGradientClipping(
            self.model, max_grad_norm=setting.max_grad_norm, use_ghost_clipping=True, loss_reduction="mean"
        )
        self.optimizer = DPOptimizerFastGradientClipping(
            setting.optimizer(self.parameters),
            noise_multiplier=setting.noise_multiplier,
            max_grad_norm=setting.max_grad_norm,
            expected_batch_size=setting.case.batch,
            loss_reduction="mean",
        )
        self.two_passes = DPTensorFastGradientClipping

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        losses = losses_of(logits_of(self.wrapped, batch), batch["labels"])
        self.two_passes(self.wrapped, self.optimizer, losses, "mean").backward()
        self.optimizer.step()

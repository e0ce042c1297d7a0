"""Opacus with per-sample gradients in memory, as `PrivacyEngine.make_private` sets it up."""

from __future__ import annotations

from torch import nn

from ..models import Batch, logits_of, losses_of
from .base import Contender, Setting


class OpacusHooks(Contender):
    """GradSampleModule and DPOptimizer; the loss is a mean over records."""

    name = "opacus hooks"
    package = "opacus"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        self.wrapped = GradSampleModule(self.model, loss_reduction="mean")
        self.optimizer = DPOptimizer(
            setting.optimizer(self.parameters),
            noise_multiplier=setting.noise_multiplier,
            max_grad_norm=setting.max_grad_norm,
            expected_batch_size=setting.case.batch,
            loss_reduction="mean",
        )

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        losses_of(logits_of(self.wrapped, batch), batch["labels"]).mean().backward()
        self.optimizer.step()

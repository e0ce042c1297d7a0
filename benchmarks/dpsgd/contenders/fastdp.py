"""fastDP's book-keeping (one backward pass, norms by whichever form is cheaper a layer)."""

from __future__ import annotations

from torch import nn

from ..models import Batch, logits_of, losses_of
from .base import Contender, Setting


class FastDP(Contender):
    """PrivacyEngine with flat Abadi clipping and its default, MixOpt."""

    name = "fastdp"
    package = "fastDP"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        from fastDP import PrivacyEngine

        engine = PrivacyEngine(
            self.model,
            batch_size=setting.case.batch,
            sample_size=1000 * setting.case.batch,
            epochs=1,
            noise_multiplier=setting.noise_multiplier,
            max_grad_norm=setting.max_grad_norm,
            clipping_fn="Abadi",
            clipping_mode="MixOpt",
            clipping_style="all-layer",
            loss_reduction="mean",
        )
        self.optimizer = setting.optimizer(self.parameters)
        engine.attach(self.optimizer)

    def step(self, batch: Batch) -> None:
        losses_of(logits_of(self.model, batch), batch["labels"]).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

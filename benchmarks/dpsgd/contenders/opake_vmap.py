"""Opake's functional form: vmap over records, with its patches for transformers and PEFT."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..models import Batch, losses_of
from .base import Contender, Setting


class Opake(Contender):
    """clipped_grad and gaussian_noise; torch's optimizer takes the noisy mean."""

    name = "opake"
    package = "opake"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        from opake.dpsgd.clipping import clipped_grad
        from opake.dpsgd.noise import gaussian_noise
        from opake.functional import make_functional
        from opake.patches import apply_model_patches, apply_runtime_patches
        from opake.random import key

        apply_runtime_patches()
        apply_model_patches(self.model)
        functional, self.trained, frozen = make_functional(
            self.model, disable_autograd_tracking=True, partition_trainable=True
        )

        def loss(parameters: dict[str, Tensor], ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
            output: Any = functional({**frozen, **parameters}, input_ids=ids[None], attention_mask=mask[None])
            logits = output.logits
            return losses_of(logits[:, logits.shape[1] - len(labels) :], labels[None])[0]

        self.clipped, self.clip_state = clipped_grad(
            loss, clipping_norm=setting.max_grad_norm, normalize_by=setting.case.batch, batch_argnums=(1, 2, 3)
        )
        self.noise, self.noise_state = gaussian_noise(noise_multiplier=setting.noise_multiplier, key=key(0))
        self.optimizer = setting.optimizer(self.parameters)

    def step(self, batch: Batch) -> None:
        grads, self.clip_state = self.clipped(
            self.trained, batch["input_ids"], batch["attention_mask"], batch["labels"], state=self.clip_state
        )
        noisy, self.noise_state = self.noise(grads, self.noise_state)
        for name, grad in noisy.pytree.items():
            self.weights[name].grad = grad
        self.optimizer.step()

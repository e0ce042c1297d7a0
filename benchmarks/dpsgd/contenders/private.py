"""privkt, through the loop that its users write."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

from torch import nn

from privkt.dpsgd import Keys, PrivateTraining
from privkt.privacy import Budget

from ..models import Batch
from .base import Contender, Setting


class Privkt(Contender):
    """PrivateTraining with q = 1: every record in every step, in one microbatch, so all contenders see the same work.

    Sampling, noise from ChaCha20 and the float64 sum are part of the step. Keys are those of tests: nothing is claimed.
    """

    name = "privkt"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        size = setting.case.batch
        self.batch: Batch = {}
        self.training = PrivateTraining(
            self.model,
            setting.optimizer(self.parameters),
            range(size),
            collate_fn=lambda records: self.batch,
            budget=Budget(8.0, 1e-5),
            size=size,
            batch_size=size,
            steps=setting.steps,
            microbatch_size=size,
            max_grad_norm=setting.max_grad_norm,
            run_id="benchmark",
            purpose="benchmark",
            fingerprint="0" * 64,
            data_set_id="0" * 32,
            verify=False,
            test_keys=Keys.for_tests(0),
        )
        self.batches = cast("Generator[Any, None, None]", iter(self.training))

    def step(self, batch: Batch) -> None:
        self.batch = batch
        self.training.step(self.training.causal_lm_losses(next(self.batches)))

    def close(self) -> None:
        self.batches.close()  # its dropout seed must not come back in the middle of the next model's making


class PrivktCheckpointed(Privkt):
    """The same with activation checkpointing, as transformers switches it on."""

    name = "privkt checkpointed"

    def __init__(self, setting: Setting, model: nn.Module) -> None:
        super().__init__(setting, model)
        enable: Any = self.model.gradient_checkpointing_enable
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})

"""Private training through `privkt.dpsgd`: what this backend hands it, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from privkt.contracts import Model, Privacy, Progress, Recipe
from privkt.dpsgd.training import PrivateTraining
from privkt.privacy import Release
from privkt_transformers import loop
from privkt_transformers.devices import memory_advice
from privkt_transformers.loading import Loaded


def train_privately(
    model: torch.nn.Module,
    rows: Sequence[Any],
    losses: Callable[[Sequence[Any]], torch.Tensor],
    recipe: Recipe,
    privacy: Privacy,
    *,
    width: int,
    base: Loaded,
    folder: Path,
    name: str,
    progress: Progress,
) -> Release[Any]:
    """DP-SGD over `rows`, one a record. `width`, the public length that all are padded to, sizes microbatches.

    Guarantee: order, batches and noise are PrivateTraining's own; this loop only computes per-record losses. Weights of
        the model are on their device before it is wrapped, and PrivateTraining refuses a first step that moves nothing.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, scheduler = loop.make_optimizer(parameters, recipe, loop.steps_of(recipe, privacy.size))
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "model"
    with memory_advice("private training", "lower recipe.microbatch_size or recipe.max_length"):
        with torch.enable_grad():
            training = PrivateTraining(
                model,
                optimizer,
                list(rows),
                collate_fn=list,
                budget=privacy.budget,
                size=privacy.size,
                epochs=recipe.epochs,
                batch_size=recipe.batch_size,
                microbatch_size=loop.rows_at_once(recipe, base.device, width),
                max_grad_norm=recipe.max_grad_norm,
                run_id=privacy.run_id,
                purpose=privacy.purpose,
                fingerprint=privacy.fingerprint,
                data_set_id=privacy.data_set_id,
                data_changed=privacy.data_changed,
                checkpoint=folder / "private-training",
                scheduler=scheduler,
                model_name=name,
                progress=progress,
            )
            for part in training:
                training.step(losses(part))
        release = training.finish(folder=result)
    if isinstance(release.payload, Model):
        base.tokenizer.save_pretrained(result)
    return release

"""Classifiers that are causal models trained to write the label's name after a cue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.contracts import Adapter, Example, Model, Privacy, Progress, Recipe
from privkt.privacy import RefusedInput, Release
from privkt_transformers.causal import train_rows
from privkt_transformers.checkpoints import Checkpoint
from privkt_transformers.classification import cued
from privkt_transformers.examples import encode_examples, row_losses
from privkt_transformers.heads import ClassifierInfo
from privkt_transformers.merging import merged
from privkt_transformers.options import LoraOptions
from privkt_transformers.private import train_privately
from privkt_transformers.saving import save_network
from privkt_transformers.trainables import needs_float32, trainable_copy

if TYPE_CHECKING:
    from privkt_transformers.backend import TransformersBackend


def train_label_tokens(
    backend: TransformersBackend,
    examples: Sequence[Example],
    recipe: Recipe,
    lora: LoraOptions | None,
    *,
    folder: Path,
    privacy: Privacy | None,
    progress: Progress,
) -> Release[Model] | Model:
    """A Model whose folder `classify` reads; an adapter is merged into it.

    Raises: RefusedInput, for `trainable: head`, which such a classifier does not have.
    """
    if lora is None and recipe.trainable == "head":
        raise RefusedInput(
            "recipe.trainable: a label-tokens classifier has no head to train; use lora, all or last:K, or "
            "`classifier: head`"
        )
    about = f"{backend.identity}|{backend.settings.cue}"
    checkpoint = None if privacy is not None else Checkpoint(folder, examples, recipe, about)
    if checkpoint is not None and checkpoint.finished():
        return Model(checkpoint.result)
    base = backend.base_for(float32=needs_float32(recipe, lora))
    cue = backend.settings.cue
    longest = max(len(base.tokenizer(f" {label}")["input_ids"]) for label in recipe.labels) + 1
    prompts = cued(base, [e.prompt for e in examples], cue, recipe.max_length - longest)
    asked = [
        replace(e, prompt=prompt, completion=f" {e.completion}") for e, prompt in zip(examples, prompts, strict=True)
    ]
    rows = encode_examples(base, asked, recipe)
    trained = trainable_copy(base, recipe, lora)
    info = ClassifierInfo("label-tokens", recipe.labels, recipe.max_length - longest, cue=cue)

    def write(place: Path) -> None:
        save_network(merged(trained), place, backend.inference_dtype)
        info.write(place)

    if privacy is not None:
        release: Release[Adapter | Model] = train_privately(
            trained.wrapped if trained.wrapped is not None else trained.loaded.network,
            rows,
            lambda part: row_losses(trained.loaded, part, recipe.max_length),
            recipe,
            privacy,
            width=recipe.max_length,
            base=base,
            folder=folder / "trained",
            name=backend.name,
            progress=progress,
        )
        place = folder / "model"
        place.mkdir(exist_ok=True)
        write(place)
        return release.map(lambda _, at: Model(Path(at)), public={"at": str(place)})
    assert checkpoint is not None
    train_rows(backend, trained, rows, examples, recipe, checkpoint, progress)
    return Model(checkpoint.finish(write))

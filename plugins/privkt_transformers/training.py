"""What `train` refuses, and which trainer does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.contracts import Adapter, CapabilityMissing, Example, Model, Privacy, Progress, Recipe, SoftPrompt
from privkt.privacy import RefusedInput, Release
from privkt_transformers.loop import SCHEDULES
from privkt_transformers.options import LoraOptions, parse_lora

if TYPE_CHECKING:
    from privkt_transformers.backend import TransformersBackend

TASKS = ("causal-lm", "classification")


def train(
    backend: TransformersBackend,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    folder: Path,
    privacy: Privacy | None,
    progress: Progress,
) -> Release[Adapter] | Release[Model] | Adapter | Model:
    """Trains a copy of the model by its recipe.

    `recipe.lora`, or else the model's own `lora` option where the recipe would train "all", makes an adapter.
    Raises: RefusedInput, before anything is spent.
    """
    check_recipe(backend, examples, recipe, privacy)
    lora = lora_of(backend, recipe)
    if recipe.task == "classification":
        if backend.settings.classifier == "label-tokens" and backend.place.generative:
            from privkt_transformers.label_tokens import train_label_tokens

            return train_label_tokens(
                backend, examples, recipe, lora, folder=folder, privacy=privacy, progress=progress
            )
        from privkt_transformers.classifiers import train_classifier

        return train_classifier(backend, examples, recipe, lora, folder=folder, privacy=privacy, progress=progress)
    if not backend.place.generative:
        raise CapabilityMissing(
            f"backend transformers (role {backend.context.role!r}) cannot train next tokens: {backend.name!r} is an "
            "encoder; give this role a causal language model"
        )
    from privkt_transformers.causal import train_causal

    return train_causal(backend, examples, recipe, lora, folder=folder, privacy=privacy, progress=progress)


def lora_of(backend: TransformersBackend, recipe: Recipe) -> LoraOptions | None:
    """The adapter to train, if any."""
    if recipe.lora is not None or isinstance(backend.weights, Adapter):
        # An adapter that is in place goes on with its own rank and targets, whatever the recipe says of new ones.
        return parse_lora(recipe.lora or {}, "recipe.lora")
    return backend.settings.lora if recipe.trainable == "all" else None


def check_recipe(
    backend: TransformersBackend, examples: Sequence[Example], recipe: Recipe, privacy: Privacy | None
) -> None:
    """Refuses what no training can do, or no private one may. Messages hold numbers and names, never an example."""
    if recipe.task not in TASKS:
        raise RefusedInput(f"recipe.task: must be one of {', '.join(TASKS)}, got {recipe.task!r}; choose one")
    if recipe.schedule not in SCHEDULES:
        raise RefusedInput(
            f"recipe.schedule: must be one of {', '.join(SCHEDULES)}, got {recipe.schedule!r}; choose one"
        )
    for name in ("epochs", "batch_size", "learning_rate", "max_grad_norm"):
        if not getattr(recipe, name) > 0:
            raise RefusedInput(f"recipe.{name}: must be above 0, got {getattr(recipe, name)}; correct it")
    if recipe.max_length < 2:
        raise RefusedInput(f"recipe.max_length: must be at least 2, got {recipe.max_length}; correct it")
    size = recipe.microbatch_size
    if size != "auto" and not (isinstance(size, int) and size >= 1):
        raise RefusedInput(
            f"recipe.microbatch_size: must be a whole number above 0 or auto, got {size!r}; leave it out"
        )
    goes_on = isinstance(backend.weights, Adapter) and recipe.task == "causal-lm" and privacy is None
    if isinstance(backend.weights, Adapter | SoftPrompt) and not goes_on:
        raise RefusedInput(
            f"train: {backend.name!r} must be trained from whole weights, got a backend with an adapter or soft prompt "
            "in place; train the backend without it (only a plain training of next tokens goes on with an adapter)"
        )
    if not examples:
        raise RefusedInput("train: there must be examples, got none; check the data's file and columns")
    if privacy is not None and any(example.weight != 1 for example in examples):
        raise RefusedInput(
            "train: a private training must give every record weight 1 (its clipping is what bounds a record), got "
            "another weight; leave weights out, or train on public text"
        )
    if any(example.weight < 0 for example in examples):
        raise RefusedInput("train: weights must be 0 or more, got a negative one; correct it")
    if recipe.task == "classification":
        known = set(recipe.labels)
        if len(known) < 2 or len(known) != len(recipe.labels):
            raise RefusedInput(
                f"recipe.labels: must name at least two different labels, got {len(recipe.labels)}; declare them"
            )
        strange = sum(example.completion not in known for example in examples)
        if strange:
            raise RefusedInput(
                f"train: the label of every example must be one of the {len(known)} declared ones, got {strange} "
                "others; correct `labels` or the rows"
            )
    elif recipe.trainable == "head" and recipe.lora is None:
        raise RefusedInput(
            "recipe.trainable: head belongs to the task classification, got causal-lm; use lora, all or last:K"
        )

"""Next-token training: plain or private, of an adapter or of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.contracts import Adapter, Example, Model, Privacy, Progress, Recipe
from privkt.privacy import Release
from privkt_transformers import loop
from privkt_transformers.adapters import adapter_files, read_adapter, write_adapter
from privkt_transformers.checkpoints import Checkpoint
from privkt_transformers.examples import Row, encode_examples, row_losses
from privkt_transformers.options import LoraOptions
from privkt_transformers.private import train_privately
from privkt_transformers.saving import save_network
from privkt_transformers.trainables import Trainable, needs_float32, trainable_copy

if TYPE_CHECKING:
    from privkt_transformers.backend import TransformersBackend


def train_causal(
    backend: TransformersBackend,
    examples: Sequence[Example],
    recipe: Recipe,
    lora: LoraOptions | None,
    *,
    folder: Path,
    privacy: Privacy | None,
    progress: Progress,
) -> Release[Adapter] | Release[Model] | Adapter | Model:
    """An Adapter with `lora`, otherwise a Model in `folder`; a Release of it with `privacy`."""
    if privacy is None:
        return _plainly(backend, examples, recipe, lora, folder, progress)
    base = backend.base_for(float32=needs_float32(recipe, lora))
    rows = encode_examples(base, examples, recipe)
    trained = trainable_copy(base, recipe, lora)
    return train_privately(
        trained.wrapped if trained.wrapped is not None else trained.loaded.network,
        rows,
        lambda part: row_losses(trained.loaded, part, recipe.max_length),
        recipe,
        privacy,
        width=recipe.max_length,
        base=base,
        folder=folder,
        name=backend.name,
        progress=progress,
    )


def train_rows(
    backend: TransformersBackend,
    trained: Trainable,
    rows: Sequence[Row],
    examples: Sequence[Example],
    recipe: Recipe,
    checkpoint: Checkpoint,
    progress: Progress,
) -> None:
    """Plain next-token training of encoded examples, each with its own weight."""
    work = loop.Work(
        trained.parameters,
        lambda part: row_losses(trained.loaded, [rows[i] for i in part]),
        [example.weight for example in examples],
        [len(row.ids) for row in rows],
        trained.loaded.device,
        autocast=backend.computes_in_bfloat16 and trained.wrapped is None,
    )
    loop.run(
        work, recipe, checkpoint, progress.task(f"training {backend.name}", loop.steps_of(recipe, len(rows)), "steps")
    )


def _plainly(
    backend: TransformersBackend,
    examples: Sequence[Example],
    recipe: Recipe,
    lora: LoraOptions | None,
    folder: Path,
    progress: Progress,
) -> Adapter | Model:
    checkpoint = Checkpoint(folder, examples, recipe, backend.identity)
    if not checkpoint.finished():
        adapter = backend.weights if isinstance(backend.weights, Adapter) else None
        base = backend.base_for(float32=needs_float32(recipe, lora))
        rows = encode_examples(base, examples, recipe)
        trained = trainable_copy(base, recipe, lora, adapter)
        train_rows(backend, trained, rows, examples, recipe, checkpoint, progress)
        checkpoint.finish(lambda place: _write(trained, place, backend))
    return read_adapter(checkpoint.result) if lora is not None else Model(checkpoint.result)


def _write(trained: Trainable, place: Path, backend: TransformersBackend) -> None:
    if trained.wrapped is not None:
        write_adapter(adapter_files(trained.wrapped, backend.name), place)
    else:
        save_network(trained.loaded, place, backend.inference_dtype)

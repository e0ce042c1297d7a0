"""Training classifiers: a head over frozen features, or a head together with part of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from privkt.contracts import Example, Model, Privacy, Progress, Recipe
from privkt.privacy import Release
from privkt_transformers import loop
from privkt_transformers.checkpoints import Checkpoint
from privkt_transformers.embedding import Pooling, features_of_one_shape, pooled, pooling_of, truncated
from privkt_transformers.feature_memory import remembered_features
from privkt_transformers.heads import DEFAULT_RIDGE, ClassifierInfo, Head, fit_head
from privkt_transformers.loading import Loaded
from privkt_transformers.merging import merged
from privkt_transformers.network import hidden_states, pad
from privkt_transformers.options import LoraOptions
from privkt_transformers.private import train_privately
from privkt_transformers.saving import copy_companions, link_weights, save_network
from privkt_transformers.trainables import Trainable, needs_float32, trainable_copy

if TYPE_CHECKING:
    from privkt_transformers.backend import TransformersBackend


class HeadedNetwork(nn.Module):
    """A model with a linear head over its pooled hidden states; `width` pads every batch to one public length."""

    def __init__(self, loaded: Loaded, pooling: Pooling, head: Head, width: int | None = None) -> None:
        super().__init__()
        self.network, self.head = loaded.network, nn.Linear(head.weight.shape[1], head.weight.shape[0])
        self.head.load_state_dict({"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)})
        self.head.to(loaded.device)
        self._loaded, self._pooling, self._width = loaded, pooling, width

    def forward(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Scores, [b, k] float32, of rows of token ids."""
        batch = pad(self._loaded, rows, left=False, width=self._width)
        return self.head(pooled(hidden_states(self._loaded, batch), batch, self._pooling))

    def trained_head(self) -> Head:
        """The head as it is now."""
        state = {name: value.detach().cpu().numpy().copy() for name, value in self.head.state_dict().items()}
        return Head(state["weight"], state["bias"])


def train_classifier(
    backend: TransformersBackend,
    examples: Sequence[Example],
    recipe: Recipe,
    lora: LoraOptions | None,
    *,
    folder: Path,
    privacy: Privacy | None,
    progress: Progress,
) -> Release[Model] | Model:
    """A Model whose folder `classify` reads. The head begins at its fit over frozen features (or at 0 when private)."""
    targets = np.array([recipe.labels.index(example.completion) for example in examples])
    texts = [example.prompt for example in examples]
    if privacy is not None:
        return _privately(backend, texts, targets, recipe, lora, folder, privacy, progress)
    checkpoint = Checkpoint(folder, examples, recipe, backend.identity)
    if checkpoint.finished():
        return Model(checkpoint.result)
    info = _info(backend, recipe)
    weights = np.array([example.weight for example in examples])
    task = progress.task(f"{backend.name} reads", len(texts), "texts")
    rows = remembered_features(backend.loaded, texts, info.as_pooling, batch_tokens=backend.batch_tokens(), task=task)
    head = fit_head(rows, targets, weights, len(recipe.labels), recipe.weight_decay or DEFAULT_RIDGE)
    if lora is None and recipe.trainable == "head":
        return Model(checkpoint.finish(lambda place: _write_frozen(backend.loaded, head, info, place)))
    base = backend.base_for(float32=needs_float32(recipe, lora))
    trained = trainable_copy(base, recipe, lora)
    headed = HeadedNetwork(trained.loaded, info.as_pooling, head)
    ids = truncated(base, texts, recipe.max_length)
    goal = torch.from_numpy(targets).to(base.device)

    def losses(part: Sequence[int]) -> torch.Tensor:
        scores = headed([ids[i] for i in part])
        return nn.functional.cross_entropy(scores.float(), goal[list(part)], reduction="none")

    work = loop.Work(
        {name: p for name, p in headed.named_parameters() if p.requires_grad},
        losses,
        weights.tolist(),
        [len(row) for row in ids],
        base.device,
        autocast=backend.computes_in_bfloat16 and lora is None,
    )
    task = progress.task(f"training {backend.name}", loop.steps_of(recipe, len(texts)), "steps")
    loop.run(work, recipe, checkpoint, task)
    return Model(checkpoint.finish(_writer(backend, trained, headed, info)))


def _privately(
    backend: TransformersBackend,
    texts: list[str],
    targets: np.ndarray,
    recipe: Recipe,
    lora: LoraOptions | None,
    folder: Path,
    privacy: Privacy,
    progress: Progress,
) -> Release[Model]:
    info = _info(backend, recipe)
    if lora is None and recipe.trainable == "head":
        # Rows of norm 1 one by one: statistics of the whole data would be a release of their own.
        info = replace(info, normalize=True)
        # In float32 and at one shape, since a record must not change how another's features round.
        base, trained = backend.base_for(float32=True), None
        features = features_of_one_shape(base, texts, info.as_pooling, batch_tokens=backend.batch_tokens())
        model: nn.Module = nn.Linear(features.shape[1], len(recipe.labels)).to(base.device)
        inputs: list[Any] = list(torch.from_numpy(features).to(base.device))
        forward: Callable[[list[Any]], torch.Tensor] = lambda part: model(torch.stack(part))  # noqa: E731
        width = 1
    else:
        base = backend.base_for(float32=needs_float32(recipe, lora))
        trained = trainable_copy(base, recipe, lora)
        zeros = Head(
            np.zeros((len(recipe.labels), base.hidden_size), np.float32), np.zeros(len(recipe.labels), np.float32)
        )
        # One place more than any record fills: batches with and without padding may take different kernels.
        length = min(recipe.max_length, base.context - 1)
        width = length + 1
        model = HeadedNetwork(trained.loaded, info.as_pooling, zeros, width)
        inputs = truncated(base, texts, length)
        forward = model

    def losses(part: Sequence[tuple[Any, int]]) -> torch.Tensor:
        goal = torch.tensor([target for _, target in part], device=base.device)
        return nn.functional.cross_entropy(forward([x for x, _ in part]).float(), goal, reduction="none")

    release = train_privately(
        model,
        list(zip(inputs, targets.tolist(), strict=True)),
        losses,
        recipe,
        privacy,
        width=width,
        base=base,
        folder=folder / "trained",
        name=backend.name,
        progress=progress,
    )
    place = folder / "model"
    place.mkdir(exist_ok=True)
    if isinstance(model, HeadedNetwork) and trained is not None:
        _writer(backend, trained, model, info)(place)
    else:
        linear: Any = model
        state = {name: value.detach().cpu().numpy().copy() for name, value in linear.state_dict().items()}
        _write_frozen(base, Head(state["weight"], state["bias"]), info, place)
    return release.map(lambda _, at: Model(Path(at)), public={"at": str(place)})


def _info(backend: TransformersBackend, recipe: Recipe) -> ClassifierInfo:
    base = backend.loaded
    pooling = pooling_of(base.folder, base.context, backend.settings.pooling)
    length = min(recipe.max_length, pooling.max_length)
    return ClassifierInfo("head", recipe.labels, length, pooling.mode, pooling.normalize)


def _write_frozen(base: Loaded, head: Head, info: ClassifierInfo, place: Path) -> None:
    copy_companions(base.folder, place)
    link_weights(base.folder, place)
    head.save(place)
    info.write(place)


def _writer(
    backend: TransformersBackend, trained: Trainable, headed: HeadedNetwork, info: ClassifierInfo
) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        save_network(merged(trained), place, backend.inference_dtype)
        headed.trained_head().save(place)
        info.write(place)

    return write

"""Class probabilities of texts: by a trained head, or by how likely each label's name is after a cue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from privkt.contracts import BackendError
from privkt.privacy import RefusedInput
from privkt_transformers.feature_memory import remembered_features
from privkt_transformers.heads import ClassifierInfo, Head
from privkt_transformers.loading import Loaded
from privkt_transformers.prompts import encode

if TYPE_CHECKING:
    from privkt_transformers.backend import TransformersBackend

_DEFAULT_LENGTH = 256


def classify(backend: TransformersBackend, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Class probabilities, [n, len(labels)] float64, each row summing to 1.

    Edge cases: `labels` in another order than at training are followed; a subset shares the whole probability.
    Raises: BackendError, without a classifier; RefusedInput, for a label that it does not know.
    """
    info = classifier_of(backend, labels)
    if not texts:
        return np.zeros((0, len(labels)))
    if info.kind == "label-tokens":
        return label_probabilities(backend, texts, labels, info)
    missing = [label for label in labels if label not in info.labels]
    if missing:
        raise RefusedInput(
            f"classify: every label must be one that the classifier was trained on ({', '.join(info.labels)}), got "
            f"{len(missing)} others; use its labels, or train it anew"
        )
    rows = remembered_features(backend.loaded, texts, info.as_pooling, batch_tokens=backend.batch_tokens())
    found = Head.read(backend.loaded.folder).probabilities(rows)[:, [info.labels.index(x) for x in labels]]
    return found / found.sum(axis=1, keepdims=True)


def classifier_of(backend: TransformersBackend, labels: Sequence[str]) -> ClassifierInfo:
    """How this backend's weights choose labels."""
    saved = ClassifierInfo.of(backend.place_of_weights.config)
    if saved is not None:
        return saved
    if backend.settings.classifier == "label-tokens" and backend.place.generative:
        return ClassifierInfo("label-tokens", tuple(labels), _DEFAULT_LENGTH, cue=backend.settings.cue)
    raise BackendError(
        f"model {backend.name!r} (role {backend.context.role!r}): it has no classifier; train one and use "
        "`with_weights`, or set `classifier: label-tokens` for a causal model"
    )


def label_probabilities(
    backend: TransformersBackend, texts: Sequence[str], labels: Sequence[str], info: ClassifierInfo
) -> np.ndarray:
    """The likelihood of each label's name after the text and the cue, made to sum to 1."""
    prompts = cued(backend.loaded, texts, info.cue, info.max_length)
    asked = [(prompt, f" {label}") for prompt in prompts for label in labels]
    scores = backend.score([prompt for prompt, _ in asked], [name for _, name in asked])
    logs = np.array([s.logprob for s in scores]).reshape(len(texts), len(labels))
    grown = np.exp(logs - logs.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def cued(loaded: Loaded, texts: Sequence[str], cue: str, max_length: int) -> list[str]:
    """Each text with the cue after it; a long text loses its end, never the cue."""
    room = max(1, max_length - len(encode(loaded, [cue], special=False)[0]) - 8)
    rows = encode(loaded, texts, special=False)
    return [
        (text if len(row) <= room else loaded.tokenizer.decode(row[:room])) + cue
        for text, row in zip(texts, rows, strict=True)
    ]

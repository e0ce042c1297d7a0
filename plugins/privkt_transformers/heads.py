"""Linear classifiers over fixed features: fitted to convergence, saved beside a model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from privkt.privacy import RefusedInput
from privkt_transformers.embedding import Pooling
from privkt_transformers.loading import HEAD_FILE

_CONFIG_KEY = "privkt_classifier"
DEFAULT_RIDGE = 0.1
_MOST_ITERATIONS = 300


@dataclass(frozen=True)
class ClassifierInfo:
    """What a saved classifier says of itself in config.json. `kind` is "head" or "label-tokens"."""

    kind: str
    labels: tuple[str, ...]
    max_length: int
    pooling: str = "mean"
    normalize: bool = False
    cue: str = ""

    @property
    def as_pooling(self) -> Pooling:
        """How the head's features are made."""
        return Pooling(self.pooling, self.normalize, self.max_length)

    def write(self, folder: Path) -> None:
        """Puts this, id2label and label2id into the folder's config.json."""
        file = folder / "config.json"
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        config["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
        config["label2id"] = {label: i for i, label in enumerate(self.labels)}
        config[_CONFIG_KEY] = {k: v for k, v in asdict(self).items() if k != "labels"}
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, config: dict[str, Any]) -> ClassifierInfo | None:
        """What a config.json says, if it is that of a classifier of ours."""
        found = config.get(_CONFIG_KEY)
        if not isinstance(found, dict):
            return None
        labels = config["id2label"]
        return cls(labels=tuple(labels[str(i)] for i in range(len(labels))), **found)


@dataclass(frozen=True)
class Head:
    """A linear map from features to scores. Shapes: weight: [k, d] float32; bias: [k] float32."""

    weight: np.ndarray
    bias: np.ndarray

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, [n, k] float64."""
        scores = features.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        grown = np.exp(scores)
        return grown / grown.sum(axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Writes the head's file."""
        save_file({"weight": self.weight, "bias": self.bias}, folder / HEAD_FILE)

    @classmethod
    def read(cls, folder: Path) -> Head:
        """The head in a folder."""
        tensors = load_file(folder / HEAD_FILE)
        return cls(tensors["weight"], tensors["bias"])


def fit_head(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, classes: int, ridge: float = DEFAULT_RIDGE
) -> Head:
    """The minimiser of mean(weight x cross-entropy) + ridge/2 |W|^2 over standardised features.

    Shapes: features: [n, d]; targets: [n] int64; weights: [n].
    Edge cases: a class without examples gets a low constant score; a constant feature counts for nothing.
    Raises: RefusedInput, without a positive weight.
    """
    if len(features) == 0 or not (weights > 0).any():
        raise RefusedInput("train: at least one example must have a weight above 0, got none; give labelled texts")
    x = torch.from_numpy(features.astype(np.float64))
    y, w = torch.from_numpy(targets), torch.from_numpy(weights.astype(np.float64))
    centre, spread = x.mean(0), x.std(0, unbiased=False)
    spread = torch.where(spread > 1e-6, spread, torch.inf)
    x = (x - centre) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_MOST_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fit = (torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="none") * w).mean()
        # The bias is held too, far more loosely: a class without examples would otherwise run to minus infinity.
        value = fit + 0.5 * ridge * weight.square().sum() + 1e-4 * bias.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    raw = (weight.detach() / spread).numpy()
    shift = bias.detach().numpy() - raw @ centre.numpy()
    return Head(raw.astype(np.float32), shift.astype(np.float32))

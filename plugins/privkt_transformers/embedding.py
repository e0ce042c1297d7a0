"""Sentence embeddings: pooled hidden states, with the pooling that a sentence-transformers folder asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privkt.contracts import BackendError, ProgressTask
from privkt_transformers.devices import memory_advice
from privkt_transformers.loading import Loaded
from privkt_transformers.network import PaddedBatch, batches_by_tokens, hidden_states, pad

_POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}
_DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class Pooling:
    """How hidden states become one row. `normalize` gives rows of norm 1 before anything else uses them."""

    mode: str = "mean"
    normalize: bool = False
    max_length: int = _DEFAULT_LENGTH
    # A sentence-transformers folder whose modules are more than pooling and normalisation: only its library knows them.
    foreign: bool = False


def pooling_of(folder: Path, context: int, mode: str | None = None) -> Pooling:
    """What a model folder asks for: its sentence-transformers files, else the mean; `mode` overrides."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return Pooling(mode or "mean", max_length=min(context, _DEFAULT_LENGTH))
    steps = json.loads(modules.read_text(encoding="utf-8"))
    kinds = [step["type"].rpartition(".")[2] for step in steps]
    length = context
    if (limits := folder / "sentence_bert_config.json").is_file():
        length = min(context, json.loads(limits.read_text(encoding="utf-8")).get("max_seq_length") or context)
    found = mode
    for step, kind in zip(steps, kinds, strict=True):
        if kind == "Pooling" and mode is None:
            found = _pooling_mode(json.loads((folder / step["path"] / "config.json").read_text("utf-8")))
    foreign = mode is None and (found is None or not set(kinds) <= {"Transformer", "Pooling", "Normalize"})
    return Pooling(found or "mean", "Normalize" in kinds, length, foreign)


def _pooling_mode(config: dict[str, object]) -> str | None:
    if isinstance(mode := config.get("pooling_mode"), str):
        return {"lasttoken": "last"}.get(mode, mode) if mode in ("mean", "cls", "max", "lasttoken") else None
    modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    others = [flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on is True]
    return modes[0] if len(modes) == 1 and len(others) == 1 else None


def embed(
    loaded: Loaded,
    texts: Sequence[str],
    pooling: Pooling,
    *,
    batch_tokens: int,
    task: ProgressTask | None = None,
) -> np.ndarray:
    """Embeddings, [n, d] float32, rows of norm 1. Texts longer than `pooling.max_length` tokens are cut."""
    if pooling.foreign:
        rows = _by_library(loaded, texts)
    else:
        rows = features(loaded, texts, pooling, batch_tokens=batch_tokens, task=task)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def features(
    loaded: Loaded,
    texts: Sequence[str],
    pooling: Pooling,
    *,
    batch_tokens: int,
    task: ProgressTask | None = None,
) -> np.ndarray:
    """Pooled hidden states, [n, d] float32, as a classifier's head takes them."""
    rows = truncated(loaded, texts, pooling.max_length)
    found = np.zeros((len(rows), loaded.hidden_size), dtype=np.float32)
    with memory_advice("embed", "lower the model's `batch_tokens`"), torch.inference_mode():
        for batch in batches_by_tokens([len(row) for row in rows], batch_tokens):
            padded = pad(loaded, [rows[i] for i in batch], left=False)
            found[batch] = pooled(hidden_states(loaded, padded), padded, pooling).cpu().numpy()
            if task is not None:
                task.advance(len(batch))
    return found


def features_of_one_shape(loaded: Loaded, texts: Sequence[str], pooling: Pooling, *, batch_tokens: int) -> np.ndarray:
    """As `features`, for private texts: what is computed for one text never depends on another.

    Guarantee: every batch has the shape that `pooling.max_length` and `batch_tokens` give, texts keep their places, and
        the last batch is filled up. One row of a single token closes each batch: without any padding in it a model may
        take another attention kernel, and all rows of that batch would round otherwise.
    """
    rows = truncated(loaded, texts, pooling.max_length)
    at_once = max(1, batch_tokens // max(pooling.max_length, 1) - 1)
    found = np.zeros((len(rows), loaded.hidden_size), dtype=np.float32)
    with memory_advice("embed", "lower the model's `batch_tokens`"), torch.inference_mode():
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            filled = [*part, *[[loaded.start]] * (at_once + 1 - len(part))]
            padded = pad(loaded, filled, left=False, width=pooling.max_length)
            made = pooled(hidden_states(loaded, padded), padded, pooling)
            found[start : start + len(part)] = made[: len(part)].cpu().numpy()
    return found


def truncated(loaded: Loaded, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Ids of each text, cut to `max_length` with its special tokens kept; never empty."""
    if not texts:
        return []
    encoded = loaded.tokenizer(
        list(texts), truncation=True, max_length=max_length, return_attention_mask=False, verbose=False
    )
    return [list(ids) or [loaded.start] for ids in encoded["input_ids"]]


def pooled(hidden: torch.Tensor, batch: PaddedBatch, pooling: Pooling) -> torch.Tensor:
    """One float32 row a sequence from right-padded hidden states; padding counts for nothing."""
    hidden, mask = hidden.float(), batch.mask.unsqueeze(-1)
    if pooling.mode == "mean":
        rows = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
    elif pooling.mode == "max":
        rows = hidden.masked_fill(mask == 0, float("-inf")).amax(1)
    elif pooling.mode == "cls":
        rows = hidden[:, 0]
    else:
        last = batch.mask.sum(1) - 1
        rows = hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
    return nn_normalize(rows) if pooling.normalize else rows


def nn_normalize(rows: torch.Tensor) -> torch.Tensor:
    """Rows of norm 1 (a zero row stays zero)."""
    return torch.nn.functional.normalize(rows, dim=-1)


def _by_library(loaded: Loaded, texts: Sequence[str]) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise BackendError(
            f"model {loaded.folder.name!r}: its modules are more than pooling and normalisation, and only the "
            "sentence-transformers library knows them; `pip install 'privkt[embeddings]'`, or set `pooling`"
        ) from None
    encoder = SentenceTransformer(str(loaded.folder), device=str(loaded.device), local_files_only=True)
    return encoder.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)

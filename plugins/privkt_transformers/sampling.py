"""Choosing the next token from scores: temperature, repetition penalty, top-k, top-p."""

from __future__ import annotations

import numpy as np
import torch

from privkt.contracts import BackendError, Sampling

_NUCLEUS_CANDIDATES = 256


def uniforms(sampling: Sampling, rows: int) -> np.ndarray:
    """One uniform number for every row and step, [rows, max_new_tokens] float64.

    Guarantee: with a seed, a row's numbers depend on the seed and on the row's index alone, so that neither batching
        nor other rows change what is drawn.
    """
    seed = sampling.seed
    entropy = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    streams = (np.random.default_rng([abs(entropy), row]) for row in range(rows))
    return np.stack([stream.random(sampling.max_new_tokens) for stream in streams])


def choose(logits: torch.Tensor, sampling: Sampling, u: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    """The next token of each row.

    Shapes: logits: [b, V] float32; u: [b] in [0, 1); seen: [b, V] bool, the tokens to penalise; result: [b].
    Edge cases: temperature 0 takes the first best; top_k = 0 and top_p >= 1 cut nothing.
    Raises: BackendError, for scores that are not numbers.
    """
    if not torch.isfinite(logits.amax(-1)).all():
        raise BackendError(
            "generate: the model gave scores that are not finite numbers; use `dtype: float32`, or train it anew"
        )
    if seen is not None:
        penalised = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    vocabulary = logits.shape[-1]
    if 0 < sampling.top_k < vocabulary:
        values, index = logits.topk(sampling.top_k)
        return _draw(values.softmax(-1), index, sampling.top_p, u)
    if sampling.top_p >= 1:
        return _draw(logits.softmax(-1), None, 1.0, u)
    return _nucleus(logits, sampling.top_p, u)


def _nucleus(logits: torch.Tensor, top_p: float, u: torch.Tensor) -> torch.Tensor:
    """Top-p over the whole vocabulary; only rows whose nucleus exceeds the best few are sorted in full."""
    mass = logits.softmax(-1)
    probabilities, index = mass.topk(min(_NUCLEUS_CANDIDATES, logits.shape[-1]))
    chosen = _draw(probabilities, index, top_p, u)
    wide = probabilities.sum(-1) < top_p
    if wide.any():
        probabilities, index = mass[wide].sort(descending=True)
        chosen[wide] = _draw(probabilities, index, top_p, u[wide])
    return chosen


def _draw(probabilities: torch.Tensor, index: torch.Tensor | None, top_p: float, u: torch.Tensor) -> torch.Tensor:
    """Inverse-transform draw; with `index`, columns are sorted downwards and stand for those tokens."""
    cumulative = probabilities.cumsum(-1)
    if top_p < 1:
        probabilities = probabilities.masked_fill(cumulative - probabilities >= top_p, 0.0)
        cumulative = probabilities.cumsum(-1)
    target = u.to(cumulative.dtype).unsqueeze(-1) * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True).clamp_(max=probabilities.shape[-1] - 1)
    # Rounding may carry the target to the very end, onto a token that cannot be drawn.
    impossible = probabilities.gather(-1, place) == 0
    place = torch.where(impossible, probabilities.argmax(-1, keepdim=True), place)
    return (place if index is None else index.gather(-1, place)).squeeze(-1)

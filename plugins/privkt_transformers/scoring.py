"""Log-likelihoods of continuations, and the token losses that training shares with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

from privkt.contracts import Score
from privkt_transformers.devices import memory_advice
from privkt_transformers.loading import Loaded
from privkt_transformers.network import batches_by_tokens, hidden_states, pad, scores
from privkt_transformers.prompts import encode, encode_prompts, refuse_too_long

_CHUNK = 1024


def score(loaded: Loaded, prompts: Sequence[str], continuations: Sequence[str], *, batch_tokens: int) -> list[Score]:
    """Log-likelihood of each continuation after its prompt, in nats.

    Guarantee: prompt and continuation are tokenised apart, as in training; padding is masked, so that a score depends
        on its own row alone up to rounding. Rows that differ in their last token only share one pass.
    Edge cases: an empty continuation scores 0 over 0 tokens.
    Raises: BackendError, when a row does not fit the context.
    """
    if len(prompts) != len(continuations):
        raise ValueError(f"score: continuations must have {len(prompts)} rows like prompts, got {len(continuations)}")
    starts = encode_prompts(loaded, prompts)
    ends = encode(loaded, continuations, special=False)
    refuse_too_long(loaded, [len(s) + len(e) for s, e in zip(starts, ends, strict=True)], 0, "row")
    wanted: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end:
            wanted[(*start, *end[:-1])].append(i)
    inputs = list(wanted)
    total = torch.zeros(len(starts), dtype=torch.float64)
    offset = 0 if loaded.prefix is None else loaded.prefix.shape[0]
    with memory_advice("score", "lower the model's `batch_tokens`"), torch.inference_mode():
        for batch in batches_by_tokens([len(row) for row in inputs], batch_tokens):
            hidden = hidden_states(loaded, pad(loaded, [inputs[j] for j in batch], left=False))
            owner, place, target = [], [], []
            for b, j in enumerate(batch):
                for i in wanted[inputs[j]]:
                    first = offset + len(starts[i]) - 1
                    owner += [i] * len(ends[i])
                    place += [(b, first + k) for k in range(len(ends[i]))]
                    target += ends[i]
            at = torch.tensor(place, device=loaded.device)
            losses = token_losses(
                loaded.network, hidden[at[:, 0], at[:, 1]], torch.tensor(target, device=loaded.device)
            )
            total.index_add_(0, torch.tensor(owner), -losses.double().cpu())
    return [Score(value, len(end)) for value, end in zip(total.tolist(), ends, strict=True)]


def token_losses(network: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each target, [m] float32, from hidden states [m, d], a chunk of rows at a time."""
    pieces = [
        nn.functional.cross_entropy(scores(network, h), t, reduction="none")
        for h, t in zip(hidden.split(_CHUNK), targets.split(_CHUNK), strict=True)
    ]
    return torch.cat(pieces)

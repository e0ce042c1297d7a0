"""Log-likelihoods of continuations, and the token losses that training shares with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from privkt.contracts import Score
from privkt_transformers.beginnings import begin
from privkt_transformers.devices import memory_advice
from privkt_transformers.loading import Loaded
from privkt_transformers.network import PaddedBatch, batches_by_tokens, hidden_states, pad, scores
from privkt_transformers.prompts import encode, encode_prompts, refuse_too_long

_CHUNK = 1024


def score(
    loaded: Loaded, prompts: Sequence[str], continuations: Sequence[str], *, batch_tokens: int, cache_tokens: int
) -> list[Score]:
    """Log-likelihood of each continuation after its prompt, in nats.

    `batch_tokens` bounds what a batch reads; `cache_tokens` what it keeps of prompts, once for each continuation.

    Guarantee: prompt and continuation are tokenised apart, as in training; padding is masked, so that a score depends
        on its own row alone up to rounding. A prompt is read once for all its continuations, and what
        all prompts begin with once for all of them.
    Edge cases: an empty continuation scores 0 over 0 tokens.
    Raises: BackendError, when a row does not fit the context.
    """
    if len(prompts) != len(continuations):
        raise ValueError(f"score: continuations must have {len(prompts)} rows like prompts, got {len(continuations)}")
    starts = encode_prompts(loaded, prompts)
    ends = encode(loaded, continuations, special=False)
    refuse_too_long(loaded, [len(s) + len(e) for s, e in zip(starts, ends, strict=True)], 0, "row")
    asked: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end:
            asked[tuple(start)].append(i)
    rows, wanted = [], []
    for row, indices in asked.items():
        room = max(1, cache_tokens // (len(row) + max(len(ends[i]) for i in indices)))
        for k in range(0, len(indices), room):
            rows.append(row)
            wanted.append(indices[k : k + room])
    places = []
    for row, part in zip(rows, wanted, strict=True):
        lengths = [len(ends[i]) for i in part]
        kept = (len(row) + max(lengths)) * len(part)
        places.append(max(len(row) + sum(lengths), kept * batch_tokens // cache_tokens))
    total = torch.zeros(len(starts), dtype=torch.float64)
    with memory_advice("score", "lower the model's `batch_tokens`"), torch.inference_mode():
        for chosen in batches_by_tokens(places, batch_tokens):
            group = [i for j in chosen for i in wanted[j]]
            owner = [place for place, j in enumerate(chosen) for _ in wanted[j]]
            total[group] = _scored(loaded, [rows[j] for j in chosen], owner, [ends[i] for i in group])
    return [Score(value, len(end)) for value, end in zip(total.tolist(), ends, strict=True)]


def _scored(
    loaded: Loaded, rows: Sequence[Sequence[int]], owner: Sequence[int], ends: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Log-likelihood of each end after the row that `owner` names, float64; rows are read once."""
    batch, cache = begin(loaded, rows)
    last = hidden_states(loaded, batch, cache)[:, -1]
    at = torch.tensor(owner, device=loaded.device)
    first = torch.tensor([end[0] for end in ends], device=loaded.device)
    total = -token_losses(loaded.network, last[at], first).double().cpu()
    longer = [k for k, end in enumerate(ends) if len(end) > 1]
    if not longer:
        return total
    cache.batch_select_indices(at[longer])
    rest = pad(replace(loaded, prefix=None), [ends[k][:-1] for k in longer], left=False)
    mask = torch.cat([batch.mask[at[longer]], rest.mask], 1)
    hidden = hidden_states(loaded, PaddedBatch(rest.ids, mask), cache)
    read = rest.mask.bool()
    targets = torch.tensor([token for k in longer for token in ends[k][1:]], device=loaded.device)
    losses = token_losses(loaded.network, hidden[read], targets).double().cpu()
    counts = torch.tensor([len(ends[k]) - 1 for k in longer])
    return total.index_add(0, torch.tensor(longer).repeat_interleave(counts), -losses)


def token_losses(network: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each target, [m] float32, from hidden states [m, d], a chunk of rows at a time."""
    pieces = [
        nn.functional.cross_entropy(scores(network, h), t, reduction="none")
        for h, t in zip(hidden.split(_CHUNK), targets.split(_CHUNK), strict=True)
    ]
    return torch.cat(pieces)

"""Running a transformers network: hidden states of a padded batch, and the scores its head gives them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from privkt_transformers.loading import Loaded


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids [b, t] with their mask; `prefixed` marks the places of a soft prompt."""

    ids: torch.Tensor
    mask: torch.Tensor
    prefixed: torch.Tensor | None = None

    @property
    def positions(self) -> torch.Tensor:
        """The place of every token in its own sequence, whatever the padding."""
        return (self.mask.cumsum(-1) - 1).clamp_(min=0)


def pad(loaded: Loaded, rows: Sequence[Sequence[int]], *, left: bool, width: int | None = None) -> PaddedBatch:
    """Rows of ids as one batch, padded on one side to the longest (or to `width`), a soft prompt before each."""
    k = 0 if loaded.prefix is None else loaded.prefix.shape[0]
    width = max(len(row) for row in rows) + k if width is None else width + k
    ids = torch.full((len(rows), width), loaded.pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    prefixed = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = width - len(row) - k if left else 0
        ids[i, start + k : start + k + len(row)] = torch.as_tensor(row, dtype=torch.long)
        mask[i, start : start + k + len(row)] = 1
        prefixed[i, start : start + k] = True
    device = loaded.device
    return PaddedBatch(ids.to(device), mask.to(device), prefixed.to(device) if k else None)


def body(network: nn.Module) -> Any:
    """The network without its head."""
    return getattr(network, getattr(network, "base_model_prefix", ""), network)


def hidden_states(loaded: Loaded, batch: PaddedBatch, cache: Any = None, **keywords: Any) -> torch.Tensor:
    """Last hidden states, [b, t, d]. With a `cache`, `batch.mask` and positions cover what the cache holds too."""
    inner = body(loaded.network)
    takes = inspect.signature(inner.forward).parameters
    length = batch.ids.shape[1]
    if loaded.generative:
        if "position_ids" in takes:
            keywords["position_ids"] = batch.positions[:, -length:]
        keywords["use_cache"] = cache is not None
        if cache is not None:
            keywords["past_key_values"] = cache
    if batch.prefixed is None:
        output = inner(input_ids=batch.ids, attention_mask=batch.mask, **keywords)
    else:
        embeddings = inner.get_input_embeddings()(batch.ids)
        assert loaded.prefix is not None
        rows = loaded.prefix.to(embeddings.dtype).repeat(batch.ids.shape[0], 1)
        embeddings = embeddings.masked_scatter(batch.prefixed.unsqueeze(-1), rows)
        output = inner(inputs_embeds=embeddings, attention_mask=batch.mask, **keywords)
    return output.last_hidden_state


def scores(network: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Next-token scores, [..., V] float32, with the scalings that some families put after the head."""
    config: Any = network.config
    head = network.get_output_embeddings()  # type: ignore[operator]
    logits = head(hidden).float()
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int, rows: int = 256) -> list[list[int]]:
    """Indices in batches, longest first: no batch holds more than `batch_tokens` places (but at least one row)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches:
            widest = lengths[batches[-1][0]]
            if (len(batches[-1]) + 1) * max(widest, 1) <= batch_tokens and len(batches[-1]) < rows:
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches

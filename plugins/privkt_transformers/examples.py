"""Training examples as token ids: what a model reads and on which tokens it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from privkt.contracts import Example, Recipe
from privkt_transformers.loading import Loaded
from privkt_transformers.losses import completion_losses
from privkt_transformers.network import hidden_states, pad
from privkt_transformers.prompts import encode, encode_prompts

_WIDTH_MULTIPLE = 8


@dataclass(frozen=True)
class Row:
    """One example's ids; tokens from `first` on are trained on, but for the first of all, which nothing predicts.

    An example is one row: cut, never split or packed.
    """

    ids: tuple[int, ...]
    first: int


def encode_examples(loaded: Loaded, examples: Sequence[Example], recipe: Recipe) -> list[Row]:
    """Each example as prompt, completion and an end token, in at most `recipe.max_length` tokens.

    Edge cases: a long completion loses its end; a prompt without room loses its beginning, down to half the room.
    """
    prompts = encode_prompts(loaded, [example.prompt for example in examples])
    completions = encode(loaded, [example.completion for example in examples], special=False)
    end = sorted(loaded.ends)[:1]
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        completion = [*completion, *end]
        room = recipe.max_length - len(completion)
        if len(prompt) > room:
            prompt = prompt[-max(room, recipe.max_length // 2, 1) :]
        ids = tuple([*prompt, *completion][: recipe.max_length])
        rows.append(Row(ids, 1 if recipe.train_on_prompt else len(prompt)))
    return rows


def row_losses(loaded: Loaded, rows: Sequence[Row], width: int | None = None) -> torch.Tensor:
    """Mean cross-entropy over each row's trained tokens, [b] float32.

    `width`, the most tokens of any row, pads to one place more and scores every place, trained or not: all shapes are
    then public, some padding is always there (a batch without any may take another attention kernel), and no row's
    rounding depends on the length of another (what a private training wants). Without it only what counts is computed.

    Guarantee: a row's loss depends on that row alone: padding is masked and carries no loss, and the mean is over the
        row's own tokens, not over the batch's.
    """
    if width is None:
        longest = max(len(row.ids) for row in rows)
        batch = pad(
            loaded, [row.ids for row in rows], left=False, width=-(-longest // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        )
    else:
        width += 1
        batch = pad(loaded, [row.ids for row in rows], left=False, width=width)
    hidden = hidden_states(loaded, batch)
    device = hidden.device
    offset = 0 if loaded.prefix is None else loaded.prefix.shape[0]
    counts = torch.tensor([len(row.ids) - max(row.first, 1) for row in rows], device=device).clamp(min=1)
    if width is not None:
        places = torch.arange(1, width, device=device)
        first = torch.tensor([max(row.first, 1) for row in rows], device=device)[:, None]
        end = torch.tensor([len(row.ids) for row in rows], device=device)[:, None]
        scored = hidden[:, offset : offset + width - 1].reshape(-1, hidden.shape[-1])
        losses = completion_losses(loaded.network, scored, batch.ids[:, offset + 1 :].reshape(-1))
        # `where` and not a product: whatever stands at a place that does not count must not matter.
        counted = (places >= first) & (places < end)
        return torch.where(counted, losses.view(len(rows), -1), 0.0).sum(1) / counts
    owner, place, target = [], [], []
    for i, row in enumerate(rows):
        trained = range(max(row.first, 1), len(row.ids))
        owner += [i] * len(trained)
        place += [offset + k - 1 for k in trained]
        target += [row.ids[k] for k in trained]
    at = torch.tensor(owner, device=device)
    losses = completion_losses(
        loaded.network, hidden[at, torch.tensor(place, device=device)], torch.tensor(target, device=device)
    )
    return losses.new_zeros(len(rows)).index_add(0, at, losses) / counts

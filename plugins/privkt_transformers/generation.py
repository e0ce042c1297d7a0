"""Continuing prompts: batches sorted by length, a key-value cache, and rows that leave when they are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from privkt.contracts import Generation, ProgressTask, Prompt, Sampling
from privkt_transformers.beginnings import begin
from privkt_transformers.devices import memory_advice
from privkt_transformers.loading import Loaded
from privkt_transformers.network import PaddedBatch, batches_by_tokens, hidden_states, scores
from privkt_transformers.prompts import encode_prompts, refuse_too_long
from privkt_transformers.sampling import choose, uniforms

_COMPACT_BELOW = 0.75
_TAIL_TOKENS = 8


def generate(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    batch_tokens: int,
    task: ProgressTask,
) -> list[Generation]:
    """One answer a prompt, in order.

    Guarantee: every row draws from random numbers of its own (see `uniforms`); what a row gets differs between
        batchings only by the rounding of its scores.
    Units: `task` advances in tokens, max_new_tokens a row.
    Raises: BackendError, when a prompt does not fit the context, or memory ends.
    """
    if not prompts:
        return []
    rows = encode_prompts(loaded, prompts)
    refuse_too_long(loaded, [len(row) for row in rows], sampling.max_new_tokens, "prompt")
    u = torch.from_numpy(uniforms(sampling, len(rows)))
    answers: list[Generation | None] = [None] * len(rows)
    lengths = [len(row) + sampling.max_new_tokens for row in rows]
    with memory_advice("generate", "lower the model's `batch_tokens`"), torch.inference_mode():
        for batch in batches_by_tokens(lengths, batch_tokens):
            made = _continue([rows[i] for i in batch], loaded, sampling, u[batch].to(loaded.device), task)
            for i, answer in zip(batch, made, strict=True):
                answers[i] = answer
    return [answer for answer in answers if answer is not None]


def _continue(
    rows: list[list[int]], loaded: Loaded, sampling: Sampling, u: torch.Tensor, task: ProgressTask
) -> list[Generation]:
    """Answers of one batch."""
    batch, cache = begin(loaded, rows)
    seen = _tokens_seen(loaded, rows) if sampling.repetition_penalty != 1 else None
    made: list[list[int]] = [[] for _ in rows]
    finished: dict[int, Generation] = {}
    finish = _finisher(loaded, sampling)
    here = torch.arange(len(rows), device=loaded.device)  # which row each place of the batch holds
    for step in range(sampling.max_new_tokens):
        hidden = hidden_states(loaded, batch, cache)[:, -1]
        token = choose(scores(loaded.network, hidden), sampling, u[here, step], seen)
        places = here.tolist()
        alive: list[int] = []
        for place, (row, new) in enumerate(zip(places, token.tolist(), strict=True)):
            if row in finished:
                continue
            made[row].append(new)
            answer = finish(made[row])
            if answer is None:
                task.advance(1)
                alive.append(place)
            else:
                finished[row] = answer
                task.advance(sampling.max_new_tokens - step)
        if not alive:
            break
        batch = PaddedBatch(token[:, None], torch.cat([batch.mask, torch.ones_like(token)[:, None]], 1))
        if seen is not None:
            seen[torch.arange(len(places), device=token.device), token] = True
        if len(alive) < _COMPACT_BELOW * len(places):
            keep = torch.tensor(alive, device=loaded.device)
            cache.batch_select_indices(keep)
            batch, here = PaddedBatch(batch.ids[keep], batch.mask[keep]), here[keep]
            seen = seen[keep] if seen is not None else None
    return [finished[row] for row in range(len(rows))]


def _tokens_seen(loaded: Loaded, rows: list[list[int]]) -> torch.Tensor:
    size = loaded.network.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    seen = torch.zeros((len(rows), size), dtype=torch.bool)
    for i, row in enumerate(rows):
        seen[i, torch.tensor(row)] = True
    return seen.to(loaded.device)


def _finisher(loaded: Loaded, sampling: Sampling) -> Callable[[list[int]], Generation | None]:
    """A function of a row's tokens so far: its answer if it is done, else None."""
    ends, decode = loaded.ends, loaded.tokenizer.decode
    stops = tuple(stop for stop in sampling.stop if stop)
    # A stop string has at most as many tokens as bytes: only so long a tail can hold one that is new.
    tail = max((len(stop.encode()) for stop in stops), default=0) + _TAIL_TOKENS

    def finish(tokens: list[int]) -> Generation | None:
        if tokens[-1] in ends:
            return Generation(decode(tokens[:-1], skip_special_tokens=True), "stop", len(tokens))
        if stops:
            recent = decode(tokens[-tail:], skip_special_tokens=True)
            if any(stop in recent for stop in stops):
                text = decode(tokens, skip_special_tokens=True)
                cut = min((text.find(stop) for stop in stops if stop in text), default=len(text))
                return Generation(text[:cut], "stop", len(tokens))
        if len(tokens) == sampling.max_new_tokens:
            return Generation(decode(tokens, skip_special_tokens=True), "length", len(tokens))
        return None

    return finish

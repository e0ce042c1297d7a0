"""Texts as rows of ids that end with the cue, and what a model says at the place after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privkt.privacy import RefusedInput
from privkt_post.networks import Net

_TOKENS_AT_ONCE = {"cpu": 2048}
_TOKENS_ELSEWHERE = 32_768


@dataclass(frozen=True)
class Row:
    """One text with its cue: ids, the places that are read, and, for a written answer, the token wanted at each."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    targets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right. Shapes: ids, mask: [b, t]; owners, places: [p], the row and column of each place."""

    ids: Tensor
    mask: Tensor
    owners: Tensor
    places: Tensor


class Layout:
    """How a text becomes a Row for one model: (start) text cue (mask) (end), at most `max_length` ids.

    Guarantee: a long text loses its end, never the cue; text, cue and answer are tokenised apart, so that their borders
        lie where they are said to lie.
    Raises: RefusedInput, for a cue that leaves no room, a masked model without a mask, or answers for one.
    """

    def __init__(self, net: Net, cue: str, max_length: int, prompt_tokens: int = 0, answer_tokens: int = 0) -> None:
        self.tokenizer, self.masked = net.tokenizer, net.masked
        left, right = frame(net.tokenizer)
        self.left = left
        self.right = right if net.masked else ()
        self.cue = tuple(self._plain(cue))
        self.answer_tokens = answer_tokens
        if net.masked:
            if answer_tokens:
                raise RefusedInput(
                    "post.task: a masked model fills one place, and a generation task has several; use a causal model"
                )
            if net.tokenizer.mask_token_id is None:
                raise RefusedInput("post: a masked model's tokenizer must have a mask token, and this one has none")
            self.cue += (int(net.tokenizer.mask_token_id),)
        self.max_length = max_length
        self.room = max_length - len(self.left) - len(self.cue) - len(self.right)
        if self.room < 1:
            raise RefusedInput(
                f"post.task.max_length: must leave room for a text beside {max_length - self.room} tokens of cue, got "
                f"{max_length}; raise it"
            )
        # One place more than any row: training and counting pad to it, so that some padding is always there.
        if max_length + answer_tokens + prompt_tokens + 1 > net.context:
            raise RefusedInput(
                f"post: prompt.tokens + task.max_length = {prompt_tokens + max_length + answer_tokens} must fit the "
                f"model's context of {net.context} with one place to spare; lower one of them"
            )

    @property
    def width(self) -> int:
        """The public length that every row fits in."""
        return self.max_length + self.answer_tokens

    def rows(self, texts: Sequence[str], answers: Sequence[str] | None = None) -> list[Row]:
        """A Row for each text. With answers, each token of an answer is read at the place before it."""
        found = []
        for i, text in enumerate(texts):
            ids = (*self.left, *self._plain(text)[: self.room], *self.cue)
            if answers is None:
                place = len(ids) - 1
                found.append(Row((*ids, *self.right), (place,)))
                continue
            answer = self.answer(answers[i])
            first = len(ids) - 1
            found.append(Row((*ids, *answer[:-1]), tuple(range(first, first + len(answer))), answer))
        return found

    def answer(self, text: str) -> tuple[int, ...]:
        """An answer's tokens: with a space before it, its end after it, at most `answer_tokens`."""
        ids = self._plain(f" {text.strip()}")
        end = self.tokenizer.eos_token_id
        return tuple([*ids, *([] if end is None else [int(end)])][: self.answer_tokens])

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special ids that a tokenizer puts before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    return (), ()


def collate(net: Net, rows: Sequence[Row], width: int | None = None) -> Batch:
    """Rows as one batch, padded to the longest or to a public `width`."""
    length = max(len(row.ids) for row in rows) if width is None else width
    ids = torch.full((len(rows), length), net.pad, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
    owners = torch.tensor([i for i, row in enumerate(rows) for _ in row.places])
    places = torch.tensor([place for row in rows for place in row.places])
    return Batch(*(x.to(net.device) for x in (ids, mask, owners, places)))


def hidden_at(net: Net, batch: Batch, prompt: Tensor | None = None) -> Tensor:
    """Hidden states at the places that are read, [p, d]. `prompt`: rows [n, d], or [b, n, d], put before each text."""
    embeddings, mask, places = net.embed(batch.ids), batch.mask, batch.places
    if prompt is not None:
        if prompt.dim() == 2:
            prompt = prompt.expand(len(batch.ids), -1, -1)
        embeddings = torch.cat([prompt.to(embeddings.dtype), embeddings], dim=1)
        mask = torch.cat([mask.new_ones(mask.shape[0], prompt.shape[1]), mask], dim=1)
        places = places + prompt.shape[1]
    return net.hidden(embeddings, mask)[batch.owners, places]


def scores_at(net: Net, batch: Batch, prompt: Tensor | None = None) -> Tensor:
    """Scores of every token at the places that are read, [p, V] float32."""
    return net.scores(hidden_at(net, batch, prompt))


def portions(net: Net, rows: Sequence[Row], prompt_tokens: int = 0) -> Iterator[list[int]]:
    """Indices of rows in portions for inference, in order, none of more tokens than the device is good for."""
    limit = _TOKENS_AT_ONCE.get(net.device.type, _TOKENS_ELSEWHERE)
    start = 0
    while start < len(rows):
        end, widest = start, 0
        while end < len(rows):
            wider = max(widest, len(rows[end].ids) + prompt_tokens)
            if end > start and wider * (end - start + 1) > limit:
                break
            widest, end = wider, end + 1
        yield list(range(start, end))
        start = end


def portions_of_one_shape(net: Net, rows: Sequence[Row], width: int, prompt_tokens: int = 0) -> Iterator[list[Row]]:
    """Rows in portions of one public size, the last filled up: every batch is [n, width], whatever the rows hold."""
    limit = _TOKENS_AT_ONCE.get(net.device.type, _TOKENS_ELSEWHERE)
    size = max(1, limit // (width + prompt_tokens))
    filler = Row((net.pad,), (0,))
    for start in range(0, len(rows), size):
        part = list(rows[start : start + size])
        yield part + [filler] * (size - len(part))


@torch.no_grad()
def read(net: Net, rows: Sequence[Row], prompt: Tensor | None = None) -> Iterator[tuple[list[int], Tensor]]:
    """(indices, scores [p, V] of their places) portion by portion, without gradient."""
    tokens = 0 if prompt is None else int(prompt.shape[-2])
    for part in portions(net, rows, tokens):
        yield part, scores_at(net, collate(net, [rows[i] for i in part]), prompt)


@torch.no_grad()
def read_at_one_shape(net: Net, rows: Sequence[Row], width: int, prompt: Tensor | None = None) -> Iterator[Tensor]:
    """Scores [1, V] of each row's one place, computed at one public shape.

    Guarantee: what another row holds, or how long it is, does not change the shapes that a row is computed in, and so
        not how its scores round. For statistics of private rows, whose sensitivity counts one row at a time.
    """
    left = len(rows)
    for part in portions_of_one_shape(net, rows, width, 0 if prompt is None else int(prompt.shape[-2])):
        scores = scores_at(net, collate(net, part, width), prompt)
        yield from (row.unsqueeze(0) for row in scores[: min(left, len(part))])
        left -= len(part)

"""Scores of classes from scores of tokens."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from privkt.privacy import RefusedInput
from privkt_post.inputs import Row, read
from privkt_post.networks import Net
from privkt_post.tasks import Task


class Verbalizer:
    """A class is the mean over its words' first tokens, of their probability or of their logit.

    Guarantee: softmax over `scores` gives, for "probability" and without an offset, the classes' mean probabilities
        made to sum to 1.
    Raises: RefusedInput, when two words begin with the same token, or one with none of the vocabulary.
    References: Wang et al. 2025, Section 4 (probability); the public code takes logits.
    """

    def __init__(self, tokenizer: Any, task: Task) -> None:
        self.labels, self.kind = task.labels, task.score
        self.offset: Tensor | None = None
        self.ids = [[first_token(tokenizer, word) for word in words] for words in task.words]
        owner: dict[int, str] = {}
        for words, ids in zip(task.words, self.ids, strict=True):
            for word, token in zip(words, ids, strict=True):
                if token in owner:
                    raise RefusedInput(
                        f"post.task.words: {word!r} and {owner[token]!r} begin with the same token of the model's "
                        "vocabulary and cannot be told apart; leave one out"
                    )
                owner[token] = word

    @property
    def tokens(self) -> tuple[int, ...]:
        """Every word's first token."""
        return tuple(token for ids in self.ids for token in ids)

    def less(self, offset: Tensor) -> Verbalizer:
        """The same with a constant taken off each class's score; offset: [C]."""
        other = copy.copy(self)
        other.offset = offset.detach().float().cpu()
        return other

    def scores(self, logits: Tensor) -> Tensor:
        """Class scores, [..., C], of token scores [..., V]."""
        if self.kind == "logit":
            each = [logits[..., ids].mean(-1) for ids in self.ids]
        else:  # log of the mean probability; what normalises over the vocabulary is the same for all classes.
            each = [logits[..., ids].logsumexp(-1) - math.log(len(ids)) for ids in self.ids]
        found = torch.stack(each, dim=-1)
        return found if self.offset is None else found - self.offset.to(found)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities, [..., C], each row summing to 1."""
        return self.scores(logits).softmax(-1)


def first_token(tokenizer: Any, word: str) -> int:
    """The first token of a word in the middle of a text. Raises RefusedInput, if the vocabulary does not have it."""
    ids = list(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
    while len(ids) > 1 and not tokenizer.decode(ids[:1]).strip():
        ids = ids[1:]  # a token for the space alone
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise RefusedInput(
            f"post.task.words: {word!r} must begin with a token of the model's vocabulary, and does not; choose another"
        )
    return int(ids[0])


def class_probabilities(net: Net, rows: Sequence[Row], verbalizer: Verbalizer, prompt: Tensor | None = None) -> Tensor:
    """Class probabilities of each row, [n, C] float32 on the processor."""
    parts = [verbalizer.probabilities(logits).cpu() for _, logits in read(net, rows, prompt)]
    return torch.cat(parts) if parts else torch.zeros(0, len(verbalizer.labels))

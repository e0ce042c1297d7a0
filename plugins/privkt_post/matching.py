"""Over which tokens a small and a large model are compared, and a map from one's embeddings to the other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from privkt.privacy import RefusedInput
from privkt_post.networks import Net
from privkt_post.tasks import Task
from privkt_post.verbalizers import Verbalizer

_FEWEST_SHARED = 16
_RIDGE = 1e-3
_SPACES = ("Ġ", "▁")


@dataclass(frozen=True, eq=False)
class Match:
    """Columns of both models' scores that speak of the same tokens. Shapes: small, large: [m] ids."""

    kind: str
    small: Tensor
    large: Tensor

    def of_small(self, scores: Tensor) -> Tensor:
        """The small model's scores of the matched tokens, [..., m]."""
        return _columns(scores, self.small)

    def of_large(self, scores: Tensor) -> Tensor:
        """The large model's, [..., m]."""
        return _columns(scores, self.large)


def match(small: Net, large: Net, kind: str, task: Task | None) -> Match:
    """The tokens to compare over: all of one vocabulary ("full"), those that both have ("shared"), the label words.

    "auto" is full for equal vocabularies, else shared.
    Guarantee: where a part of a vocabulary is compared, both distributions are over that part alone.
    Raises: RefusedInput, when the vocabularies differ and full is asked for, or share next to nothing.
    """
    same = same_vocabulary(small, large)
    if kind == "auto":
        kind = "full" if same else "shared"
    if kind == "full":
        if not same:
            raise RefusedInput(
                "post.transfer.match: full needs one vocabulary, and the small and the large model have two; use "
                "shared or words"
            )
        both = torch.arange(min(_rows(small), _rows(large)))
        return Match(kind, both, both)
    if kind == "words":
        if task is None or not task.labels:
            raise RefusedInput("post.transfer.match: words needs a classification's label words; use shared")
        return Match(
            kind,
            torch.tensor(Verbalizer(small.tokenizer, task).tokens),
            torch.tensor(Verbalizer(large.tokenizer, task).tokens),
        )
    ours, theirs = surfaces(small.tokenizer), surfaces(large.tokenizer)
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < _FEWEST_SHARED:
        raise RefusedInput(
            f"post.transfer.match: the two vocabularies must share at least {_FEWEST_SHARED} tokens, got "
            f"{len(shared)}; use words"
        )
    return Match(kind, torch.tensor([ours[s] for s in shared]), torch.tensor([theirs[s] for s in shared]))


def same_vocabulary(small: Net, large: Net) -> bool:
    """Whether every token has the same id in both."""
    return small.tokenizer.get_vocab() == large.tokenizer.get_vocab()


def surfaces(tokenizer: Any) -> dict[str, int]:
    """{what a token adds to a text: its id}, a space before a word written as one; special tokens are left out."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    pieces = any(token.startswith("##") for token in vocabulary)
    spaced = any(token.startswith(_SPACES) for token in vocabulary)
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        if number in special:
            continue
        if pieces or not spaced:
            surface = token.removeprefix("##") if token.startswith("##") else f" {token}"
        else:
            surface = f" {token[1:]}" if token.startswith(_SPACES) else token
        found.setdefault(surface, number)
    return found


def embedding_map(small: Net, large: Net, tokens: Match) -> tuple[Tensor, Tensor]:
    """(W, b) with e_large = e_small W + b, by ridge regression over matched tokens. Shapes: W: [d_s, d_l]; b: [d_l]."""
    with torch.no_grad():
        x = small.embed(tokens.small.to(small.device)).double().cpu()
        y = large.embed(tokens.large.to(large.device)).double().cpu()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), x.T @ y)
    return weight.float(), (y_mean - x_mean @ weight).float()


def _rows(net: Net) -> int:
    return int(net.network.get_output_embeddings().weight.shape[0])


def _columns(scores: Tensor, ids: Tensor) -> Tensor:
    if len(ids) == scores.shape[-1]:
        return scores  # all of them, in order
    return scores[..., ids.to(scores.device)]

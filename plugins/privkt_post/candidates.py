"""Which of several public sets a prompt is moved with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from privkt.contracts import Rows
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.runtime.preflight import source_of
from privkt_post.config import DataConfig
from privkt_post.inputs import Row, collate, portions_of_one_shape
from privkt_post.networks import Net
from privkt_post.verbalizers import Verbalizer, class_probabilities


def load_public(data: DataConfig) -> Rows:
    """The rows of a public data block."""
    rows = get_manager().create("dataset", data.source, source_of(data)).load()
    if not len(rows):
        raise RefusedInput("post: a public data set must have at least one row, got none; check its path")
    return rows


def sampled(rows: Rows, count: int, seed: int) -> list[int]:
    """Indices of `count` rows at random, in file order; all of them if there are no more."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(len(rows), generator=generator)[:count].tolist())


def informativeness(net: Net, rows: Sequence[Row], verbalizer: Verbalizer, prompt: Tensor) -> float:
    """How much the tuned prompt says of a set: entropy of its mean answer less its answers' mean entropy, in nats.

    High where the small model, behind its released prompt, is sure of different classes: texts from which the large
    one can learn all of them. Everything it looks at is public or released.
    """
    found = class_probabilities(net, rows, verbalizer, prompt.to(net.device)).double()
    return float(_entropy(found.mean(0)) - _entropy(found).mean())


@torch.no_grad()
def features(net: Net, rows: Sequence[Row], width: int) -> Tensor:
    """Mean last hidden state of each text behind no prompt, of norm 1; [n, d] on the processor.

    Guarantee: computed at one public shape, so that no text changes how another's features round.
    """
    found = []
    for part in portions_of_one_shape(net, rows, width):
        batch = collate(net, part, width)
        hidden = net.hidden(net.embed(batch.ids), batch.mask).float()
        mask = batch.mask.unsqueeze(-1)
        found.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.nn.functional.normalize(torch.cat(found)[: len(rows)], dim=-1)


def votes(net: Net, rows: Sequence[Row], candidates: Sequence[Sequence[Row]], width: int) -> list[int]:
    """How many texts lie nearest to each candidate's mean, each text voting once; before any noise.

    The candidates' common mean is taken off first: hidden states of one model all point the same way.
    """
    means = torch.stack([features(net, one, width).mean(0) for one in candidates])
    middle = means.mean(0)
    directions = torch.nn.functional.normalize(means - middle, dim=-1)
    nearest = ((features(net, rows, width) - middle) @ directions.T).argmax(-1)
    return torch.bincount(nearest, minlength=len(candidates)).tolist()


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-300).log()).sum(-1)

"""How a model with a prompt, or two models together, answer held-out texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privkt_post.inputs import Layout, Row, read
from privkt_post.networks import Net
from privkt_post.tasks import Task
from privkt_post.verbalizers import Verbalizer


@dataclass(frozen=True, eq=False)
class Reader:
    """One model with one prompt (None: without) on a task: rows of texts, scores of tokens, scores of classes."""

    net: Net
    layout: Layout
    verbalizer: Verbalizer | None
    prompt: Tensor | None = None

    def behind(self, prompt: Tensor | None) -> Reader:
        """The same model behind another prompt."""
        return replace(self, prompt=None if prompt is None else prompt.to(self.net.device))

    def last_scores(self, rows: Sequence[Row]) -> Tensor:
        """Token scores at the last place read of each row, [n, V] on the processor."""
        last = [Row(row.ids, row.places[-1:]) for row in rows]
        return torch.cat([scores.cpu() for _, scores in read(self.net, last, self.prompt)])

    def class_scores(self, texts: Sequence[str]) -> Tensor:
        """Scores of the classes, [n, C]; their softmax are probabilities."""
        assert self.verbalizer is not None
        found = [
            self.verbalizer.scores(scores).cpu() for _, scores in read(self.net, self.layout.rows(texts), self.prompt)
        ]
        return torch.cat(found) if found else torch.zeros(0, len(self.verbalizer.labels))


def make_reader(net: Net, task: Task, max_length: int, *, prompt_tokens: int, answer_tokens: int = 0) -> Reader:
    """A reader without a prompt yet. Raises RefusedInput, for words or lengths that the model cannot take."""
    layout = Layout(net, task.cue, max_length, prompt_tokens, answer_tokens)
    return Reader(net, layout, Verbalizer(net.tokenizer, task) if task.labels else None)


def calibrated(reader: Reader, texts: Sequence[str]) -> Reader:
    """The same reader, its classes' mean scores over public `texts`, without a prompt, taken off their scores.

    A small model prefers some label words whatever the text says; texts that favour no class show by how much.
    Guarantee: constants of public texts and a public model: no private row has a part in them.
    References: Zhou et al. 2024, "Batch calibration: rethinking calibration for in-context learning and prompt
        engineering" (there over the texts that are labelled, which are private here).
    """
    assert reader.verbalizer is not None
    mean = reader.behind(None).class_scores(texts).double().mean(0)
    return replace(reader, verbalizer=reader.verbalizer.less(mean))


def shifted_class_scores(large: Reader, small: Reader, prompt: Tensor, texts: Sequence[str], *, full: bool) -> Tensor:
    """Scores of the classes by z_t(x) + z_s(p_s + x) - z_s(x), without any prompt of the large model; [n, C].

    `full`: both models have one vocabulary, and the sum is one of token scores; otherwise it is one of class scores.
    """
    behind = small.behind(prompt)
    if not full:
        return large.class_scores(texts) + behind.class_scores(texts) - small.class_scores(texts)
    assert large.verbalizer is not None
    small_rows, large_rows = small.layout.rows(texts), large.layout.rows(texts)
    found = []
    for start in range(0, len(texts), 64):
        part = slice(start, start + 64)
        scores = shifted(
            large.last_scores(large_rows[part]),
            behind.last_scores(small_rows[part]),
            small.last_scores(small_rows[part]),
        )
        found.append(large.verbalizer.scores(scores))
    return torch.cat(found) if found else torch.zeros(0, len(large.verbalizer.labels))


def shifted(large: Tensor, small_with: Tensor, small_without: Tensor) -> Tensor:
    """The sum, over the tokens that both heads have."""
    size = min(large.shape[-1], small_with.shape[-1])
    total = large.clone()
    total[..., :size] += small_with[..., :size] - small_without[..., :size]
    return total


def written(layout: Layout, texts: Sequence[str], scores: Callable[[Sequence[Row]], Tensor]) -> list[str]:
    """The likeliest continuation of each text after the cue, token by token, up to the end or `answer_tokens`."""
    rows = layout.rows(texts)
    end = layout.tokenizer.eos_token_id
    new: list[list[int]] = [[] for _ in rows]
    open_rows = list(range(len(rows)))
    for _ in range(layout.answer_tokens):
        if not open_rows:
            break
        asked = [Row((*rows[i].ids, *new[i]), (len(rows[i].ids) + len(new[i]) - 1,)) for i in open_rows]
        found = scores(asked).argmax(-1).tolist()
        for i, token in zip(open_rows, found, strict=True):
            new[i].append(token)
        open_rows = [i for i in open_rows if new[i][-1] != end]
    return [layout.tokenizer.decode([t for t in ids if t != end]).strip() for ids in new]

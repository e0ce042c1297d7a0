"""How a model with a prompt, or two models together, answer held-out texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from privkt_post.inputs import Layout, Row, read
from privkt_post.networks import Net
from privkt_post.tasks import Task
from privkt_post.verbalizers import Verbalizer


@dataclass(frozen=True, eq=False)
class Reader:
    """One model with one prompt (None: without) on a task: rows of texts, scores of tokens, scores of classes.

    `public`: with texts, its classes' mean scores over them, behind its own prompt, are taken off its classes' scores.
        A small model prefers some label words whatever a text says, and a prompt moves that, noise in it too; texts
        that favour no class show by how much.
    Guarantee: what is taken off is made of public texts, a public model and its prompt: behind a released one it is
        post-processing.
    References: Zhou et al. 2024, "Batch calibration: rethinking calibration for in-context learning and prompt
        engineering" (there over the texts that are labelled, which are private here).
    """

    net: Net
    layout: Layout
    verbalizer: Verbalizer | None
    prompt: Tensor | None = None
    public: tuple[str, ...] = ()

    def behind(self, prompt: Tensor | None) -> Reader:
        """The same model behind another prompt, calibrated anew there if it is calibrated."""
        return replace(self, prompt=None if prompt is None else prompt.to(self.net.device))

    @cached_property
    def offset(self) -> Tensor | None:
        """What is taken off the classes' scores, [C]; None without public texts or classes."""
        if not self.public or self.verbalizer is None:
            return None
        return self._scores(self.verbalizer, self.public).double().mean(0)

    @property
    def calibrated(self) -> Verbalizer | None:
        """The verbalizer less the offset."""
        if self.verbalizer is None or self.offset is None:
            return self.verbalizer
        return self.verbalizer.less(self.offset)

    def last_scores(self, rows: Sequence[Row]) -> Tensor:
        """Token scores at the last place read of each row, [n, V] on the processor."""
        last = [Row(row.ids, row.places[-1:]) for row in rows]
        return torch.cat([scores.cpu() for _, scores in read(self.net, last, self.prompt)])

    def class_scores(self, texts: Sequence[str]) -> Tensor:
        """Scores of the classes, [n, C]; their softmax are probabilities."""
        assert self.calibrated is not None
        return self._scores(self.calibrated, texts)

    def _scores(self, verbalizer: Verbalizer, texts: Sequence[str]) -> Tensor:
        found = [verbalizer.scores(scores).cpu() for _, scores in read(self.net, self.layout.rows(texts), self.prompt)]
        return torch.cat(found) if found else torch.zeros(0, len(verbalizer.labels))


def make_reader(
    net: Net, task: Task, max_length: int, *, prompt_tokens: int, answer_tokens: int = 0, public: Sequence[str] = ()
) -> Reader:
    """A reader without a prompt yet. Raises RefusedInput, for words or lengths that the model cannot take."""
    layout = Layout(net, task.cue, max_length, prompt_tokens, answer_tokens)
    return Reader(net, layout, Verbalizer(net.tokenizer, task) if task.labels else None, public=tuple(public))


@dataclass(frozen=True, eq=False)
class ShiftedReader:
    """Classes by z_t(x) + z_s(p_s + x) - z_s(x): the large model without a prompt, the small one with and without.

    `full`: both models have one vocabulary, and the sum is one of token scores; otherwise it is one of class scores.
    """

    large: Reader
    small: Reader
    prompt: Tensor
    full: bool

    @cached_property
    def offset(self) -> Tensor | None:
        """The sum's means over the large model's public texts, which are taken off it, [C]; None without texts."""
        return self._scores(self.large.public).double().mean(0) if self.large.public else None

    def class_scores(self, texts: Sequence[str]) -> Tensor:
        """Scores of the classes, [n, C]."""
        found = self._scores(texts)
        return found if self.offset is None else found - self.offset.to(found)

    def _scores(self, texts: Sequence[str]) -> Tensor:
        large, small = replace(self.large, public=()), replace(self.small, public=())
        behind = small.behind(self.prompt)
        if not self.full:
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

"""A word-pair model: the next word depends on the last one alone."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from privkt.contracts import Backend, BackendContext, Capability, Generation, Progress, Prompt, Sampling, Score
from privkt.privacy import RefusedInput

START = ""


class Bigram(Backend):
    """Option `texts`: what the model is counted from; they are given to whoever asks it, so they must be public.

    Edge cases: after a word it never saw it goes on as after the start; every word has at least a count of one half.
    """

    remote = False
    declared = frozenset({Capability.GENERATE, Capability.SCORE})

    def __init__(self, options: Mapping[str, Any], context: BackendContext) -> None:
        super().__init__(options, context)
        self._pairs: dict[str, Counter[str]] | None = None

    @property
    def name(self) -> str:
        return "bigram"

    def check(self) -> None:
        unknown = sorted(set(self.options) - {"texts"})
        if unknown:
            raise RefusedInput(f"bigram: unknown option {unknown[0]!r}; it takes texts")
        texts = self.options.get("texts")
        if not isinstance(texts, list | tuple) or not any(isinstance(t, str) and t.split() for t in texts):
            raise RefusedInput("bigram: option 'texts' must be a list of texts with at least one word; give some")

    def probe(self) -> frozenset[Capability]:
        return self.declared if self.pairs else frozenset()

    @property
    def pairs(self) -> dict[str, Counter[str]]:
        """{word: how often each word follows it}, counted at first use."""
        if self._pairs is None:
            self.check()
            self._pairs = defaultdict(Counter)
            for text in self.options["texts"]:
                words = [START, *text.split()]
                for before, after in pairwise(words):
                    self._pairs[before][after] += 1
        return self._pairs

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, progress: Progress | None = None
    ) -> list[Generation]:
        return [self._answer(prompt, sampling, i) for i, prompt in enumerate(prompts)]

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        if len(prompts) != len(continuations):
            raise ValueError(
                f"bigram.score: continuations must be {len(prompts)} like prompts, got {len(continuations)}"
            )
        return [self._score(p, c) for p, c in zip(prompts, continuations, strict=True)]

    def _answer(self, prompt: Prompt, sampling: Sampling, i: int) -> Generation:
        if not isinstance(prompt, str):
            raise self._missing(Capability.CHAT)
        seed = None if sampling.seed is None else f"{sampling.seed} {i}"
        text, tokens, finish = "", 0, "length"
        for word in self._words(_last(prompt), sampling.temperature, random.Random(seed)):
            if tokens == sampling.max_new_tokens:
                break
            text, tokens = f"{text} {word}", tokens + 1
            if cuts := [text.index(stop) for stop in sampling.stop if stop in text]:
                return Generation(text[: min(cuts)], "stop", tokens)
        else:
            finish = "stop"
        return Generation(text, finish, tokens)

    def _words(self, last: str, temperature: float, draws: random.Random) -> Iterator[str]:
        while True:
            following = self.pairs.get(last) or self.pairs[START]
            words = sorted(following)
            if temperature == 0:
                last = max(words, key=lambda word: following[word])
            else:
                last = draws.choices(words, [following[word] ** (1 / temperature) for word in words])[0]
            yield last

    def _score(self, prompt: str, continuation: str) -> Score:
        vocabulary = {word for following in self.pairs.values() for word in following}
        last, total, words = _last(prompt), 0.0, continuation.split()
        for word in words:
            following = self.pairs.get(last, Counter())
            total += math.log((following[word] + 0.5) / (following.total() + 0.5 * (len(vocabulary) + 1)))
            last = word
        return Score(total, len(words))


def _last(prompt: str) -> str:
    return prompt.split()[-1] if prompt.split() else START

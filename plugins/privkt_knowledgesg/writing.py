"""Step 2: a model with the released adapter writes instructions, in rounds, until enough of them pass the filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privkt.contracts import Backend, Generation, NoProgress, Progress, Prompt, Sampling
from privkt.synthesis.asking import ask
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.filtering import InstructionFilter
from privkt_knowledgesg.pairs import Pair, PairTemplate
from privkt_knowledgesg.seeds import Origin, Seed, SeedPicker, own_seeds


@dataclass(frozen=True)
class Written:
    """Instructions that passed, with the responses that the same model wrote, if it did; draws, and counts."""

    pairs: tuple[Pair, ...]
    draws: int
    filtered: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {"kept": len(self.pairs), "draws": self.draws, "filter": self.filtered}


class Writer:
    """Writes instructions with one model and judges them with another.

    Guarantee: prompts hold the template, public seeds and what this same model wrote before, nothing else;
        answers are on disk, round by round, before the next are asked for, so that a run that was cut goes on with
        the same texts.
    """

    def __init__(
        self,
        config: KnowledgeSGConfig,
        template: PairTemplate,
        seeds: Sequence[Seed],
        professional: Backend | None,
        *,
        chat: bool,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.config, self.template, self.seeds = config, template, tuple(seeds)
        self.professional, self.chat, self.seed = professional, chat, seed
        self.progress = progress or NoProgress()

    def write(self, model: Backend, folder: Path, *, pairs: bool, title: str = "writing instructions") -> Written:
        """At most `writing.count` instructions; with `pairs`, in one go with responses.

        Edge cases: after `writing.attempts` times as many draws it ends with fewer, and the counts say so.
        """
        rule = self.config.writing
        filtered = InstructionFilter(self.config.filters, self.template, self.seeds, chat=self.chat)
        origins = [origin for origin in rule.seeding if origin is not Origin.PUBLIC or self.seeds]
        picker = SeedPicker(self.seeds, origins or [Origin.HEADER], rule.shots, self.seed)
        kept: list[Pair] = []
        most, draws, number = math.ceil(rule.attempts * rule.count), 0, 0
        task = self.progress.task(title, rule.count, "instructions")
        while len(kept) < rule.count and draws < most:
            asked = min(rule.count - len(kept), most - draws)
            own = own_seeds(kept)
            prompts: list[Prompt] = [
                self.template.writing_prompt([self._shown(seed, pairs) for seed in picker.pick(own)])
                for _ in range(asked)
            ]
            answers = ask(
                model,
                prompts,
                self._sampling(rule.max_tokens, self.seed + 7919 * number, pairs=pairs),
                journal=folder / f"round-{number:03}.jsonl",
                portion=rule.portion,
                progress=self.progress,
                title=f"{title}, round {number + 1}",
            )
            found = [(self._read(answer, pairs), answer.finish != "length") for answer in answers]
            judge = self._judge(folder, number) if filtered.judges and self.professional is not None else None
            new = filtered.keep(found, judge)
            kept += new
            draws, number = draws + asked, number + 1
            task.advance(len(new), note=f"round {number}")
        return Written(tuple(kept), draws, filtered.to_json())

    def respond(self, model: Backend, pairs: Sequence[Pair], journal: Path) -> tuple[Pair, ...]:
        """The same model's own responses to its instructions, asked for afterwards."""
        rule = self.config.writing
        answers = ask(
            model,
            [self.template.prompt(pair.question) for pair in pairs],
            self._sampling(0, self.seed, pairs=True),
            journal=journal,
            portion=rule.portion,
            progress=self.progress,
            title="writing own responses",
        )
        return tuple(
            Pair(pair.question, self.template.read(pair.question + self.template.middle + answer.text).response)
            for pair, answer in zip(pairs, answers, strict=True)
        )

    @staticmethod
    def _shown(seed: Pair, pairs: bool) -> Pair:
        """A seed's response shows how one is written, and only takes room where none is."""
        return seed if pairs else Pair(seed.question)

    def _read(self, answer: Generation, pairs: bool) -> Pair:
        found = self.template.read(answer.text)
        return found if pairs else Pair(found.question)

    def _sampling(self, tokens: int, seed: int, *, pairs: bool) -> Sampling:
        """`tokens` of an instruction; a response has as many more as a professional model's may have."""
        rule, template = self.config.writing, self.template
        stop = (template.question_mark,) if pairs else (template.response_mark, template.question_mark)
        return Sampling(
            max_new_tokens=tokens + (self.config.professional.max_tokens if pairs else 0),
            temperature=rule.temperature,
            top_k=rule.top_k,
            top_p=rule.top_p,
            stop=tuple(mark for mark in stop if mark),
            seed=seed,
        )

    def _judge(self, folder: Path, number: int) -> Any:
        professional, rule = self.professional, self.config.professional
        assert professional is not None

        def asked(prompts: Sequence[Prompt], title: str) -> list[Generation]:
            sampling = Sampling(max_new_tokens=4, temperature=0.0, stop=() if self.chat else ("\n",), seed=self.seed)
            journal = folder / f"round-{number:03}-{title.rpartition(': ')[2].replace(' ', '-')}.jsonl"
            return ask(
                professional, prompts, sampling, journal=journal, portion=rule.portion, progress=self.progress,
                title=title,
            )  # fmt: skip

        return asked

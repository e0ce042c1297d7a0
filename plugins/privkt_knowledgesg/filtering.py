"""Which written instructions stay: rules fixed in advance, over public and released text alone, each with its count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from privkt.contracts import ChatTurn, Generation, Prompt
from privkt.synthesis.filters import FilterReport
from privkt.synthesis.similarity import NearDuplicates, TfidfNearness, rouge_l
from privkt.synthesis.words import count_words
from privkt_knowledgesg.config import FilterConfig
from privkt_knowledgesg.pairs import Pair, PairTemplate
from privkt_knowledgesg.seeds import Seed

#: Asks the professional model (prompts, a title) and returns its answers.
Ask = Callable[[Sequence[Prompt], str], list[Generation]]

_SENTENCE_END = re.compile(r"[.!?。！？](?=[\"'”’)\]]*(?:\s|$))[\"'”’)\]]*")
_YES = re.compile(r"^\W*(?:answer\W+)?(yes|no)\b", re.I)


class InstructionFilter:
    """Decides about instructions in the order in which they were written.

    Guarantee: reads the instructions, the public seeds and the professional model's answers, nothing else. Equal input
        gives equal decisions; every dropped instruction is counted under exactly one reason.
    """

    def __init__(self, config: FilterConfig, template: PairTemplate, seeds: Sequence[Seed], *, chat: bool) -> None:
        self.config, self.template, self.chat = config, template, chat
        self.report = FilterReport()
        self.unreadable = 0
        self._seeds = [seed.pair.question for seed in seeds]
        self._exact = {_plain(text) for text in self._seeds}
        self._near = NearDuplicates(config.near_duplicates) if config.near_duplicates is not None else None
        self._tfidf = TfidfNearness(self._seeds)

    def keep(self, written: Sequence[tuple[Pair, bool]], ask: Ask | None = None) -> list[Pair]:
        """The instructions that stay, of (pair, whether the model came to an end), with `ask` judged at last."""
        dropped: Counter[str] = Counter()
        kept: list[Pair] = []
        for pair, ended in written:
            pair = pair if ended else Pair(self._shortened(pair), pair.response)
            fault = self._fault(pair)
            if fault is None:
                kept.append(pair)
            else:
                dropped[fault] += 1
        if ask is not None and kept:
            kept = self._judged(kept, ask, dropped)
        self.report += FilterReport(len(written), len(kept), dict(dropped))
        return kept

    def to_json(self) -> dict[str, object]:
        """Counts for the report; `duplicate_rate`: the share of exact and near duplicates in all that was written."""
        copies = sum(self.report.dropped.get(reason, 0) for reason in ("exact duplicate", "near duplicate"))
        return {
            **self.report.to_json(),
            "unreadable_judgements": self.unreadable,
            "duplicate_rate": copies / self.report.came if self.report.came else 0.0,
        }

    def _shortened(self, pair: Pair) -> str:
        """An instruction that ran out of tokens, up to its last whole sentence if that is what the config wants.

        Edge cases: with a response the instruction is whole, and the response was cut: trimming leaves both.
        """
        if self.config.unfinished == "drop":
            return ""
        if pair.response or self.config.unfinished == "keep":
            return pair.question
        ends = [match.end() for match in _SENTENCE_END.finditer(pair.question)]
        return pair.question[: ends[-1]] if ends else ""

    def _fault(self, pair: Pair) -> str | None:
        text, config = pair.question, self.config
        if not any(c.isalnum() for c in text) or not self.template.is_clean(text):
            return "malformed"
        words = count_words(text)
        if words < config.min_words:
            return "too short"
        if words > config.max_words:
            return "too long"
        plain = _plain(text)
        if plain in self._exact:
            return "exact duplicate"
        if config.tfidf is not None and self._tfidf.closest([text])[0] > config.tfidf:
            return "too like a public seed (TF-IDF)"
        if config.rouge_l is not None and any(rouge_l(text, seed) > config.rouge_l for seed in self._seeds):
            return "too like a public seed (ROUGE-L)"
        if self._near is not None and not self._near.is_new(text):
            return "near duplicate"
        self._exact.add(plain)
        return None

    def _judged(self, pairs: list[Pair], ask: Ask, dropped: Counter[str]) -> list[Pair]:
        """The professional model's verdicts; an answer that is neither yes nor no keeps the instruction, counted."""
        for reason, question in self._questions():
            answers = ask([self._prompt(question, pair.question) for pair in pairs], f"judging instructions: {reason}")
            verdicts = [verdict(answer.text) for answer in answers]
            self.unreadable += verdicts.count(None)
            dropped[reason] += verdicts.count(False)
            pairs = [pair for pair, said in zip(pairs, verdicts, strict=True) if said is not False]
            if not pairs:
                break
        return pairs

    def _questions(self) -> list[tuple[str, str]]:
        found = []
        if self.config.domain is not None:
            found.append(("not of the domain", f"Does the text belong to the field of {self.config.domain}?"))
        if self.config.quality:
            found.append(("of low quality", "Is the text clear and complete enough for an expert to respond to it?"))
        return found

    @property
    def judges(self) -> bool:
        """Whether the professional model is asked about instructions at all."""
        return bool(self._questions())

    def _prompt(self, question: str, text: str) -> Prompt:
        if self.chat:
            return (ChatTurn("user", f"{question} Answer yes or no.\n\nText: {text}"),)
        return f"{question} Answer yes or no.\n\nText: {text}\n\nAnswer:"


def verdict(answer: str) -> bool | None:
    """True for yes, False for no, None for anything else."""
    found = _YES.match(answer)
    return None if found is None else found.group(1).lower() == "yes"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())

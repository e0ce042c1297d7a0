"""Step 6: the large model writes new labelled texts after label-balanced demonstrations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from privkt.contracts import Backend, Generation, LabelledText, Progress, Prompt, Sampling
from privkt.synthesis.asking import ask
from privkt.synthesis.filters import FilterReport, keep_valid
from privkt.synthesis.parsing import ParseReport, labelled_texts
from privkt.synthesis.templates import Template
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.prompts import augmentation_prompt


class DemonstrationQueues:
    """A shuffled queue of texts for each label, shuffled anew when it is used up.

    Guarantee: the same rows and seed give the same demonstrations; no text is shown a second time before every text
        of its label was shown once.
    """

    def __init__(self, rows: Iterable[LabelledText], seed: int) -> None:
        self._random = random.Random(seed)
        self._all: dict[str, list[LabelledText]] = {}
        for row in rows:
            self._all.setdefault(str(row.label), []).append(row)
        self._left: dict[str, list[LabelledText]] = {label: [] for label in self._all}

    def take(self, label: str, count: int) -> list[LabelledText]:
        """The next `count` texts of a label, fewer if it has fewer, none twice."""
        taken: list[LabelledText] = []
        for _ in range(min(count, len(self._all.get(label, ())))):
            queue = self._left[label]
            if not queue:
                queue.extend(row for row in self._all[label] if row not in taken)
                self._random.shuffle(queue)
            taken.append(queue.pop())
        return taken

    def shuffled(self, items: Sequence[LabelledText]) -> list[LabelledText]:
        """The items in a random order of this queue's own generator."""
        return self._random.sample(list(items), len(items))

    def others(self, label: str, labels: Sequence[str], count: int) -> list[str]:
        """`count` labels other than the given one, at random if there are more."""
        rest = [other for other in labels if other != label and other in self._all]
        return rest if len(rest) <= count else self._random.sample(rest, count)


@dataclass(frozen=True)
class Augmented:
    """New rows and how the answers were read and filtered."""

    rows: tuple[LabelledText, ...]
    parsed: ParseReport
    filtered: FilterReport

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {"rows": len(self.rows), "parse": self.parsed.to_json(), "filter": self.filtered.to_json()}


def augment(
    demonstrations: Sequence[LabelledText],
    template: Template,
    llm: Backend,
    config: FDKTConfig,
    *,
    chat: bool,
    seed: int,
    journal: Path | None,
    progress: Progress | None = None,
    title: str = "writing new texts",
) -> Augmented:
    """`config.prompts` prompts, the labels in turn; no demonstrations at all make zero-shot prompts.

    Edge cases: what does not parse is counted; a copy of any given demonstration is dropped and counted.
    """
    wanted, prompts = balanced_prompts(demonstrations, template, config, chat=chat, seed=seed)
    single = config.llm.texts_per_prompt == 1
    sampling = Sampling(
        max_new_tokens=config.llm.max_tokens * config.llm.texts_per_prompt,
        temperature=config.llm.temperature,
        top_k=config.llm.top_k,
        top_p=config.llm.top_p,
        stop=("\n\n",) if single and not chat else (),
        seed=seed,
    )
    answers = ask(llm, prompts, sampling, journal=journal, portion=config.llm.portion, progress=progress, title=title)
    rows, parsed = read_answers(answers, wanted, template, chat=chat)
    kept, filtered = keep_valid(
        rows,
        config.validity(),
        near_duplicates=config.near_duplicates,
        already=[row.text for row in demonstrations],
    )
    return Augmented(tuple(kept), parsed, filtered)


def balanced_prompts(
    demonstrations: Sequence[LabelledText], template: Template, config: FDKTConfig, *, chat: bool, seed: int
) -> tuple[list[str], list[Prompt]]:
    """The wanted label of every prompt, and the prompts."""
    queues = DemonstrationQueues(demonstrations, seed)
    wanted: list[str] = []
    prompts: list[Prompt] = []
    for number in range(config.prompts):
        label = template.labels[number % len(template.labels)]
        others = queues.others(label, template.labels, config.labels_per_prompt - 1)
        shown = queues.shuffled([row for one in others for row in queues.take(one, config.demonstrations)])
        # The wanted label's own texts stand last: small models follow what they read last.
        shown += queues.take(label, config.demonstrations)
        wanted.append(label)
        prompts.append(augmentation_prompt(shown, label, template, chat=chat, texts=config.llm.texts_per_prompt))
    return wanted, prompts


def read_answers(
    answers: Sequence[Generation], wanted: Sequence[str], template: Template, *, chat: bool
) -> tuple[list[LabelledText], ParseReport]:
    """The rows of all answers. A plain prompt ended with the code, so the code is put back before the answer.

    Edge cases: a chat answer without any code is read as a text of the label that was asked for.
    """
    rows: list[LabelledText] = []
    total = ParseReport()
    for answer, label in zip(answers, wanted, strict=True):
        text = answer.text if chat else template.prompt(label) + answer.text
        found, report = labelled_texts(text, template)
        if chat and "no control code" in report.unparsed and answer.text.strip():
            found, report = labelled_texts(template.prompt(label) + answer.text, template)
        rows.extend(found)
        total += report
    return rows, total

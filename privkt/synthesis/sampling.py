"""Labelled texts drawn from a generator: prompted with the control code alone, so the label is the code's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from privkt.contracts import Adapter, Backend, LabelledText, Model, NoProgress, Progress, Sampling, Texts
from privkt.privacy import RefusedInput
from privkt.synthesis.filters import FilterReport, Validity, keep_valid
from privkt.synthesis.templates import Template, one_line

#: Keys of a config that say how texts are drawn from a generator that is trained already.
DRAWING = (
    "samples_per_label", "max_tokens", "temperature", "top_k", "top_p", "attempts", "min_words", "min_characters",
    "near_duplicates",
)  # fmt: skip


@dataclass(frozen=True)
class SamplingRule:
    """How many texts a label, declared in the config and never collected from data, and when to stop trying.

    `attempts`: at most this many times `per_label` draws are made for one label.
    """

    per_label: int
    sampling: Sampling
    validity: Validity = field(default_factory=Validity)
    attempts: float = 4.0
    near_duplicates: float | None = None

    def __post_init__(self) -> None:
        if self.per_label < 1 or self.attempts < 1:
            raise RefusedInput(
                f"sampling: per_label and attempts must be at least 1, got {self.per_label} and {self.attempts}; "
                "raise them"
            )


@dataclass(frozen=True)
class Sampled:
    """What was drawn: rows grouped by label in declared order; per label the draws and the shortfall; the reasons."""

    texts: Texts
    draws: Mapping[str, int]
    short: Mapping[str, int]
    report: FilterReport

    def to_json(self) -> dict[str, object]:
        """Plain values for a report."""
        return {"draws": dict(self.draws), "short": dict(self.short), "filter": self.report.to_json()}


def draw_labelled(
    weights: Adapter | Model, backend: Backend, template: Template, rule: SamplingRule, progress: Progress | None = None
) -> Sampled:
    """`sample_labelled` from the backend with these weights in place, which are freed afterwards."""
    generator = backend.with_weights(weights)
    try:
        return sample_labelled(generator, template, rule, progress)
    finally:
        generator.release_memory()


def sample_labelled(
    backend: Backend, template: Template, rule: SamplingRule, progress: Progress | None = None
) -> Sampled:
    """An equal number of valid texts for every label of the template.

    Guarantee: reads the backend's weights and public values only; if the weights are a Release, so is the result, by
        post-processing. The number of valid drawn texts ends the drawing, never a comparison with private text.
    Edge cases: a label still short after `attempts` is counted under `short`; the others are not cut down to it.
    """
    task = (progress or NoProgress()).task("drawing texts", rule.per_label * len(template.labels), "texts")
    rows: dict[str, list[LabelledText]] = {label: [] for label in template.labels}
    draws = dict.fromkeys(template.labels, 0)
    report = FilterReport()
    most = math.ceil(rule.attempts * rule.per_label)
    round_ = 0
    while True:
        asked = {label: min(rule.per_label - len(rows[label]), most - draws[label]) for label in template.labels}
        prompts = [template.prompt(label) for label, n in asked.items() for _ in range(n)]
        if not prompts:
            break
        owners = [label for label, n in asked.items() for _ in range(n)]
        seed = None if rule.sampling.seed is None else rule.sampling.seed + 7919 * round_
        answers = backend.generate(prompts, replace(rule.sampling, seed=seed))
        drawn = {label: list(kept) for label, kept in rows.items()}
        for label, answer in zip(owners, answers, strict=True):
            drawn[label].append(LabelledText(_own_text(answer.text, template), label))
        for label, n in asked.items():
            draws[label] += n
            had = len(rows[label])
            rows[label], found = keep_valid(drawn[label], rule.validity, near_duplicates=rule.near_duplicates)
            report += FilterReport(n, len(rows[label]) - had, found.dropped)
            task.advance(len(rows[label]) - had, note=f"round {round_ + 1}")
        round_ += 1
    flat = [row for label in template.labels for row in rows[label]]
    return Sampled(
        Texts.of(flat),
        draws,
        {label: rule.per_label - len(kept) for label, kept in rows.items() if len(kept) < rule.per_label},
        report,
    )


def _own_text(answer: str, template: Template) -> str:
    """The answer up to the next control code: a generator that runs on begins another record, of another label."""
    lines: list[str] = []
    for line in answer.splitlines():
        if template.read_code(line) is not None:
            break
        lines.append(line)
    return one_line(" ".join(lines))

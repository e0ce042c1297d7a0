"""What the client keeps in the end: every arm's scores, the adapter, and what only it may know."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from privkt.contracts import Adapter, Backend, ClientSite, Outcome, Parcel, Texts
from privkt.privacy import RefusedInput
from privkt.synthesis.arms import ArmResults
from privkt.synthesis.overlap import overlap_report
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig
from privkt_knowledgesg.distilling import TEXTS, examples, from_texts
from privkt_knowledgesg.judging import compare
from privkt_knowledgesg.pairs import Pair, PairTemplate, read_pairs
from privkt_knowledgesg.scoring import answers_of, label_scores, perplexity, text_scores

STATEMENT = "the returned adapter is post-processing of the released one: it has the release's guarantee"
NO_PAIRS = "no pair passed the filters and was answered"
SHARED = (
    "the returned adapter is post-processing of the released ones of all clients: to a record of one client alone it "
    "has that client's guarantee; somebody with rows at several is owed the sum of theirs"
)


@dataclass(frozen=True)
class _Held:
    """Held-out pairs, and the label of each, if answers are labels."""

    pairs: tuple[Pair, ...]
    labels: tuple[str, ...] | None
    too_long: int = 0  # rows left out, since the base model's context does not hold them


class Scorer:
    """Scores arms at one client. Prompts may hold private rows and are kept nowhere; nothing of it crosses."""

    def __init__(
        self, site: ClientSite, config: KnowledgeSGConfig, template: PairTemplate, names: Mapping[str, str]
    ) -> None:
        self.site, self.config, self.template, self.names = site, config, template, dict(names)
        self.base = site.model("base")
        self.private = read_pairs(site.data.load(), config.fields, names)
        self.held = self._held()

    def why_not(self, arm: Arm) -> str | None:
        """Why an arm cannot be scored on these rows, if it cannot."""
        if arm is not Arm.IN_CONTEXT or self.held is None:
            return None
        shown = self.private[: self.config.scoring.shots]
        if all(self._fit(self.held.pairs, self.template.writing_prompt(shown))):
            return None
        return (
            f"{len(shown)} private examples and a held-out row do not fit the base model's context; lower scoring.shots"
        )

    def score(self, arm: Arm, taught: Mapping[str, Adapter]) -> dict[str, Any]:
        """Metrics of one arm on the held-out rows."""
        weights = self._weights(arm, taught)
        model = self.base if weights is None else self.base.with_weights(weights)
        try:
            return self._scores(model, self.private[: self.config.scoring.shots] if arm is Arm.IN_CONTEXT else ())
        finally:
            model.release_memory()

    def _weights(self, arm: Arm, taught: Mapping[str, Adapter]) -> Adapter | None:
        if arm in (Arm.BASE, Arm.IN_CONTEXT):
            return None
        if arm is Arm.DP_ADAPTER:
            return self.site.state.load_release("adapter").payload
        if arm is not Arm.PRIVATE:
            return taught[arm.value]
        folder = self.site.folder / "private"
        trained = self.base.train(
            examples(self.private, self.template),
            replace(self.config.student.recipe(self.site.seed), epochs=self.config.tuning.epochs),
            folder=folder,
            progress=self.site.progress,
        )
        assert isinstance(trained, Adapter), "a recipe with LoRA gives an Adapter"
        shutil.rmtree(folder, ignore_errors=True)
        return trained

    def _scores(self, model: Backend, shown: Sequence[Pair]) -> dict[str, Any]:
        assert self.held is not None
        before = self.template.writing_prompt(shown)
        prompts = [f"{before}{pair.question}{self.template.middle}" for pair in self.held.pairs]
        answers = answers_of(model, prompts, self.template, self.config.scoring.max_tokens)
        references = [pair.response for pair in self.held.pairs]
        if self.held.labels is not None:
            found: dict[str, Any] = label_scores(answers, self.held.labels, self.names)
        else:
            found = text_scores(answers, references)
            if self.config.scoring.perplexity:
                found["perplexity"] = perplexity(model, prompts, references)
            if "judge" in self.site.models:
                judged = compare(self.site.model("judge"), [p.question for p in self.held.pairs], answers, references)
                if judged.score is not None:
                    found["win_score"] = judged.score
                found["unreadable_verdicts"] = float(judged.unreadable)
        return found

    def _held(self) -> _Held | None:
        if self.site.evaluation is None:
            return None
        rows, count = self.site.evaluation(), self.config.scoring.rows
        if set(rows.label or ()) - set(self.names) and self.config.fields.response == "label":
            raise RefusedInput(
                "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
            )
        pairs = read_pairs(rows, self.config.fields, self.names)[:count]
        labels = tuple(rows.label or ())[:count] if self.config.fields.response == "label" else None
        fitting = [i for i, fits in enumerate(self._fit(pairs, "")) if fits]
        if pairs and not fitting:
            raise RefusedInput(
                "evaluation.data: at least one row and its answer must fit the base model's context, got none; give "
                "shorter rows, lower scoring.max_tokens, or choose a model with a longer context"
            )
        return _Held(
            tuple(pairs[i] for i in fitting),
            None if labels is None else tuple(labels[i] for i in fitting),
            len(pairs) - len(fitting),
        )

    def _fit(self, pairs: Sequence[Pair], before: str) -> list[bool]:
        """Which rows the base model's context holds behind `before`, with a written answer and with their own."""
        room = self.base.context_tokens
        prompts = [f"{before}{pair.question}{self.template.middle}" for pair in pairs]
        asked = self.base.count_tokens(prompts)
        if room is None or asked is None:
            return [True] * len(pairs)
        whole = self.base.count_tokens([p + pair.response for p, pair in zip(prompts, pairs, strict=True)]) or asked
        scored = self.config.scoring.perplexity and self.config.fields.response != "label"
        return [
            a + self.config.scoring.max_tokens <= room and (not scored or w + 1 <= room)
            for a, w in zip(asked, whole, strict=True)
        ]


def score_arms(
    site: ClientSite, config: KnowledgeSGConfig, template: PairTemplate, names: Mapping[str, str], taught: Parcel
) -> Outcome:
    """The adapter that came back, every arm's scores, and what the local report says.

    Edge cases: without evaluation rows nothing is scored; an arm that a resumed step has finished is not scored again.
    """
    adapters = {name: item for name, item in taught.items.items() if isinstance(item, Adapter)}
    texts = taught.items[TEXTS]
    assert isinstance(texts, Texts)
    scorer, done = Scorer(site, config, template, names), ArmResults(site.folder)
    why = {arm: NO_PAIRS if arm.is_served and arm.value not in adapters else scorer.why_not(arm) for arm in config.arms}
    arms = [arm for arm in config.arms if why[arm] is None and scorer.held is not None]
    progress = site.progress.task("scoring", len(arms), "arms")
    for arm in arms:
        if arm.value not in done:
            done.put(arm.value, scorer.score(arm, adapters))
        progress.advance(1, note=arm.heading)
    return Outcome(
        scores={arm.heading: done[arm.value] for arm in arms},
        notes={
            "statement": SHARED if config.together else STATEMENT,
            "not_measured": {
                arm.heading: why[arm] or "no evaluation rows were given" for arm in config.arms if arm not in arms
            },
            "held_out_rows": len(scorer.held.pairs) if scorer.held else None,
            "held_out_rows_too_long": scorer.held.too_long if scorer.held else 0,
            "main": Arm.KNOWLEDGESG.heading,
            "arms": {
                arm.heading: {"protection": arm.protection}
                | _amount(len(from_texts(texts, arm)), shared=config.together)
                for arm in (arms or [Arm.KNOWLEDGESG])
            },
            "overlap": {
                part: overlap_report(
                    written,
                    [text for pair in scorer.private for text in (pair.question, pair.response)],
                    config.canaries,
                )
                for part, written in _released(texts, labels=config.fields.response == "label").items()
            },
        },
        model=_with_card(adapters[Arm.KNOWLEDGESG.value], site, config),
    )


def _with_card(adapter: Adapter, site: ClientSite, config: KnowledgeSGConfig) -> Adapter:
    """The adapter that is handed over, with a README that says what guarantee it has and from where."""
    released = site.state.load_release("adapter").guarantee
    whose = f"For records of client {site.id} alone: {released}" if config.together else str(released)
    begun = "goes on from that one and" if config.student.start == "adapter" else "began as the base model and"
    statement = SHARED if config.together else STATEMENT
    card = (
        f"# An adapter for {site.model('base').name}\n\n{whose}\n\n"
        "That is the guarantee of the adapter that this client released of its private records. This one\n"
        f"{begun} was taught by the server with texts that were made behind what was released, and with no private\n"
        f"record: {statement}.\n"
    )
    return Adapter({**adapter.files, "README.md": card.encode()})


def _released(texts: Texts, *, labels: bool) -> dict[str, list[str]]:
    """What the released adapter wrote and came back, each text once, by what it is; the teacher's answers are not its,
    and a label's name is no copy of anything.

    Guarantee: none; it is compared with private text at its owner's, and nothing follows from it.
    """
    of = {arm: from_texts(texts, arm) for arm in Arm if arm.is_released}
    parts = {
        "instructions": [pair.question for pairs in of.values() for pair in pairs],
        "responses": [pair.response for arm, pairs in of.items() if arm is not Arm.KNOWLEDGESG for pair in pairs],
    }
    if labels or not parts["responses"]:
        del parts["responses"]
    return {part: list(dict.fromkeys(written)) for part, written in parts.items()}


def _amount(pairs: int, *, shared: bool) -> dict[str, Any]:
    others = " of this client, and the other clients'" if shared else ""
    return {"pairs": pairs} | ({"learnt_from": f"{pairs} pairs{others}"} if pairs else {})

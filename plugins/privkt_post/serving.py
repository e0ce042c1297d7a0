"""The provider's part: the student, and moving a client's prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from privkt.contracts import Rows, ServerSite, SoftPrompt
from privkt.privacy import RefusedInput
from privkt_post import counting
from privkt_post.answering import Reader
from privkt_post.candidates import informativeness, load_public, sampled
from privkt_post.config import POSTConfig
from privkt_post.distilling import distil, published
from privkt_post.inputs import Row
from privkt_post.matching import match
from privkt_post.networks import open_net, open_role
from privkt_post.prompts import initial_rows, rows_of, to_message
from privkt_post.readers import reader_of
from privkt_post.store import StudentStore
from privkt_post.tasks import Task
from privkt_post.transferring import VARIANT_ALPHAS, Pair, fitted_alpha, mapped_start, transfer

_CARD = (
    "# A soft prompt for {name}\n\nMoved there by privkt from a prompt of a smaller model, with public texts alone: it "
    "has\nthe guarantee of that prompt and of any noisy counts beside it, which their owner's ledger and card state.\n"
)


def student_of(site: ServerSite, config: POSTConfig) -> dict[str, Any]:
    """The card of the small model: distilled from the target, or the provider's own of the role `student`."""
    store = StudentStore(config.distillation.store)
    if "student" in site.models:
        own = site.model("student")
        return published(own.weights_folder(), own.name, store)[1]
    target = site.model("target")
    assert config.distillation.corpus is not None, "a plan without student and corpus is refused"
    texts = load_public(config.distillation.corpus).text
    return distil(open_role(target), target.name, texts, config.distillation, site.progress)[1]


class Mover:
    """Moves prompts of one task from a student to the target."""

    def __init__(self, site: ServerSite, config: POSTConfig, task: Task, student: Mapping[str, Any]) -> None:
        self.site, self.config, self.task = site, config, task
        target = site.model("target")
        self.name = target.name
        folder = StudentStore(config.distillation.store).take(str(student["name"]), str(student["sha256"]))
        self.small = reader_of(open_net(folder, target.options), task, config)
        self.large = reader_of(open_role(target), task, config)

    def move(
        self, prompt: SoftPrompt, counts: Mapping[str, int], size: int, folder: Path
    ) -> tuple[SoftPrompt | None, dict[str, Any]]:
        """(the target's prompt, what is said of the transfer). None, where the variant makes no prompt.

        `counts`: the client's noisy ones, by name; `size`: its declared N.
        """
        settings, begun = self.config.transfer, time.monotonic()
        rows = rows_of(prompt, self.small.net.width)
        if settings.variant == "inference":
            return None, {"variant": settings.variant}
        number, scores = self._chosen(rows, counts)
        public = load_public(settings.public[number])
        chosen = sampled(public, settings.samples, self.site.seed)
        pair = Pair(
            self.small.net,
            self.large.net,
            self._rows(self.small, public, chosen),
            self._rows(self.large, public, chosen),
            match(self.small.net, self.large.net, settings.match, self.task),
            self.config.task.calibrate,
        )
        alpha = self._alpha(rows, public, chosen, counts, size)
        if settings.initial == "mapped":
            start = mapped_start(pair, rows)
        else:
            start = initial_rows(self.large.net, self.config.prompt.text, len(rows))
        moved, losses = transfer(
            pair, rows, start, settings, alpha, seed=self.site.seed, folder=folder, progress=self.site.progress
        )
        report = {
            "variant": settings.variant,
            "alpha": alpha,
            "public_set": number,
            "public_scores": scores,
            "texts": len(chosen),
            "compared_over": {"match": pair.match.kind, "tokens": len(pair.match.small)},
            "steps": len(losses),
            "first_loss": losses[0],
            "last_loss": sum(losses[-10:]) / len(losses[-10:]),
            "seconds": round(time.monotonic() - begun, 1),
        }
        return to_message(self.large.net, moved, name=self.name, card=_CARD.format(name=self.name)), report

    def check(self) -> None:
        """Refuses, before any client spends anything, what the transfer would refuse afterwards.

        Raises: RefusedInput, for public sets without the labels or answers that settings need, or vocabularies that
            cannot be compared.
        """
        settings = self.config.transfer
        if settings.variant == "inference":
            return
        match(self.small.net, self.large.net, settings.match, self.task)
        if settings.choose == "features" and len(settings.public) > 1 and self.small.verbalizer is None:
            raise RefusedInput("post.transfer.choose: features judges class answers; use first or statistic")
        if settings.variant == "both" and not isinstance(settings.alpha, float) and not self.task.labels:
            raise RefusedInput("post.transfer.alpha: a generation task has no chance level; give alpha as a number")
        for data in settings.public:
            public = load_public(data)
            self._need_answers(public)
            if settings.variant == "both" and settings.alpha == "public":
                self._need_labels(public)

    def _need_answers(self, public: Rows) -> None:
        answer = self.config.task.answer
        if answer is not None and answer not in public.columns:
            raise RefusedInput(
                f"post.transfer.public: a generation task reads public answers in the column {answer!r}, which a set "
                "does not have; list it under `columns`"
            )

    def _need_labels(self, public: Rows) -> None:
        if not public.label or not set(public.label) <= set(self.task.labels):
            raise RefusedInput(
                "post.transfer.alpha: public needs public texts with the task's own labels, and a set has none or "
                "others; name its label column, or give alpha as a number"
            )

    def _rows(self, reader: Reader, public: Rows, chosen: Sequence[int]) -> tuple[Row, ...]:
        answer = self.config.task.answer
        if answer is None:
            return tuple(reader.layout.rows([public.text[i] for i in chosen]))
        return tuple(reader.layout.rows([public.text[i] for i in chosen], [public.columns[answer][i] for i in chosen]))

    def _chosen(self, prompt: Tensor, counts: Mapping[str, int]) -> tuple[int, list[float]]:
        """(which public set, what each scored)."""
        sets, how = self.config.transfer.public, self.config.transfer.choose
        if how == "first" or len(sets) == 1:
            return 0, []
        if how == "statistic":
            found = [float(counts[f"{counting.VOTES} {i}"]) for i in range(len(sets))]
        else:
            # Uncalibrated: constants of one set would favour it, since the balance of its answers is judged.
            verbalizer = self.small.verbalizer
            assert verbalizer is not None  # check() refused it otherwise
            found = []
            for data in sets:
                public = load_public(data)
                chosen = sampled(public, self.config.transfer.samples, self.site.seed)
                rows = self.small.layout.rows([public.text[i] for i in chosen])
                found.append(informativeness(self.small.net, rows, verbalizer, prompt))
        return max(range(len(found)), key=lambda i: (found[i], -i)), found

    def _alpha(
        self, prompt: Tensor, public: Rows, chosen: Sequence[int], counts: Mapping[str, int], size: int
    ) -> float:
        settings = self.config.transfer
        if settings.variant in VARIANT_ALPHAS:
            return VARIANT_ALPHAS[settings.variant]
        if isinstance(settings.alpha, float):
            return settings.alpha
        chance = 1 / len(self.task.labels)
        if settings.alpha == "heuristic":
            return fitted_alpha(counts[counting.ZERO_SHOT] / size, counts[counting.TUNED] / size, chance)
        labels = [(public.label or ())[i] for i in chosen]
        texts = [public.text[i] for i in chosen]
        zero_shot = _accuracy(self.large, texts, labels)
        tuned = _accuracy(self.small.behind(prompt), texts, labels)
        return fitted_alpha(zero_shot, tuned, chance)


def _accuracy(reader: Reader, texts: Sequence[str], labels: Sequence[str]) -> float:
    assert reader.verbalizer is not None
    found = reader.class_scores(texts).argmax(-1).tolist()
    return sum(reader.verbalizer.labels[i] == label for i, label in zip(found, labels, strict=True)) / len(labels)

"""What the client keeps in the end: every arm's scores, the transferred prompt, and what only it may know."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privkt.contracts import Backend, ClientSite, NoProgress, Outcome, Privacy, Progress, SoftPrompt
from privkt.privacy import Guarantee, RefusedInput, Release
from privkt.privacy.guarantee import rounded_up
from privkt.synthesis.arms import ArmResults
from privkt_post import membership
from privkt_post.answering import Reader, ShiftedReader, make_reader, shifted, written
from privkt_post.arms import Arm
from privkt_post.clients import lesson_of, open_student, privacy_of
from privkt_post.config import POSTConfig
from privkt_post.counting import together
from privkt_post.inputs import Row
from privkt_post.matching import same_vocabulary
from privkt_post.networks import Net, open_net, open_role
from privkt_post.prompts import initial_rows, rows_of, with_card
from privkt_post.queries import PrivateQueries
from privkt_post.readers import reader_of
from privkt_post.store import StudentStore, digest_of
from privkt_post.tasks import Task, make_task
from privkt_post.tuning import Lesson, tune_plainly, tune_privately
from privkt_post.verbalizers import class_probabilities

STATEMENT = (
    "what is handed over was made from what was released and public texts alone, and has its guarantee: {guarantee}"
)
CALIBRATION = "calibration"
OTHER_LARGE = (
    "the files of `local_target` are not those of the provider's model: what the large model answers here is answered "
    "by this one, which the transferred prompt was not made for unless both are the same in another form"
)


class Arms:
    """One client's arms: which model answers each behind which prompt, and how well."""

    def __init__(
        self,
        site: ClientSite,
        config: POSTConfig,
        student: Mapping[str, Any],
        release: Release[SoftPrompt],
        counts: Guarantee | None,
        moved: SoftPrompt | None,
    ) -> None:
        self.site, self.config, self.student, self.release, self.moved = site, config, student, release, moved
        # What the transfer was told: the prompt, and counts beside it.
        self.guarantee = together(release.guarantee, counts)
        self.task = make_task(config.task, site.data.labels)
        self.held = site.evaluation() if site.evaluation else None
        if self.held is not None and config.task.answer is None and set(self.held.label or ()) - set(self.task.labels):
            raise RefusedInput(
                "evaluation.data: every label must be among the client's declared ones, got another; correct the labels"
            )

    @cached_property
    def small(self) -> Reader:
        """The small model, without a prompt."""
        return reader_of(open_student(self.site, self.config, self.student), self.task, self.config)

    @cached_property
    def large(self) -> Reader:
        """The large model in this process, without a prompt."""
        return reader_of(open_role(self.site.model("local_target")), self.task, self.config)

    def judge(self, possible: Sequence[Arm]) -> Outcome:
        """Scores every arm on the held-out rows.

        Edge cases: without held-out rows nothing is scored; an arm that a resumed step has finished is not done again.
        """
        done = ArmResults(self.site.folder)
        arms = tuple(possible) if self.held is not None else ()
        progress = self.site.progress.task("labelling held-out texts", max(1, len(arms)), "arms")
        for arm in arms:
            if arm.value not in done:
                done.put(arm.value, self._judged(arm))
            progress.advance(1, note=arm.heading)
        if self.config.membership.models and "membership" not in done:
            done.put("membership", self._membership())
        scored = [arm for arm in arms if "scores" in done[arm.value]]
        guarantee = self.guarantee
        notes: dict[str, Any] = {
            "statement": STATEMENT.format(guarantee=guarantee),
            "epsilon": guarantee.epsilon if guarantee.is_private else "inf",
            "main": self.config.own.heading,
            "not_measured": {arm.heading: self._why(arm, done) for arm in self.config.arms if arm not in scored},
            "arms": {arm.heading: {"protection": self._protection(arm)} for arm in scored},
            "seconds": self._seconds(done, scored),
            "student": {k: self.student[k] for k in ("name", "sha256")},
        }
        local = self.site.models.get("local_target")
        if self.config.task.calibrate and local is not None and not local.remote:
            known = done[self.config.own.value].get("offset") if self.config.own in scored else None
            notes[CALIBRATION] = self._constants(self._own) if known is None else known
        if self._other_large:
            notes["warning"] = OTHER_LARGE
        if "membership" in done:
            notes["membership"] = done["membership"]
        if self.config.inference.mechanism is not None:
            queries = self._queries
            notes["inference"] = {"a text": str(queries.of_query), "a person": str(queries.of_person)}
        return Outcome(
            scores={arm.heading: done[arm.value]["scores"] for arm in scored},
            notes=notes,
            model=self._model(notes.get(CALIBRATION)),
        )

    def _why(self, arm: Arm, done: ArmResults) -> str:
        """Why an arm has no score."""
        if self.held is None:
            return "no evaluation rows were given"
        local = self.site.models.get("local_target")
        if arm is not Arm.STUDENT and (local is None or local.remote):
            return "no large model in this process: the role `local_target`"
        return str(done[arm.value]["why"])

    @property
    def _other_large(self) -> bool:
        """Whether the large model in this process has other files than the provider's."""
        local = self.site.models.get("local_target")
        told = self.student.get("large_sha256")  # a run that began before this was told has none
        if self.held is None or told is None or local is None or local.remote:
            return False
        return digest_of(local.weights_folder()) != told

    def _model(self, constants: Mapping[str, float] | None) -> SoftPrompt:
        """The prompt that is handed over, with a privacy card of its own."""
        if self.moved is None:
            return self.release.payload
        large = self.student.get("large_sha256", "not told")
        return with_card(self.moved, transferred_card(self.guarantee, self.config, self.task, large, constants))

    def _protection(self, arm: Arm) -> str:
        if arm.protection != "release":
            return arm.protection
        if not self.release.guarantee.is_private:
            return "none"
        seen = self.guarantee if arm in (Arm.POST, Arm.QUERIES) else self.release.guarantee
        said = f"ε = {rounded_up(seen.epsilon)}"
        if arm is not Arm.QUERIES:
            return said
        asked = self._queries.of_query
        return f"{said}; texts that are asked: " + (
            f"ε = {rounded_up(asked.epsilon)} each" if asked.is_private else "none"
        )

    def _seconds(self, done: ArmResults, scored: Sequence[Arm]) -> dict[str, float]:
        found = {"tuning the small model's prompt": self.site.state.load_json("seconds")["tune"]}
        found |= {f"scoring: {arm.heading}": done[arm.value]["seconds"] for arm in scored}
        if Arm.TARGET in scored:
            found["tuning a prompt on the large model"] = done[Arm.TARGET.value]["tuning"]
        return found

    def _judged(self, arm: Arm) -> dict[str, Any]:
        begun = time.monotonic()
        result: dict[str, Any] = {}
        texts = self._texts()
        if arm is Arm.DIRECT and self.small.net.width != self.large.net.width:
            return {"why": "the small model's prompt does not fit the large one: their widths differ"}
        if arm is Arm.INFERENCE and self.config.task.answer is not None and not self._full:
            return {"why": "answers are shifted token by token, and the two vocabularies differ"}
        if arm is Arm.TARGET:
            prompt: Tensor | None = self._tuned_on_large()
            result["tuning"] = round(time.monotonic() - begun, 1)
        else:
            prompt = self._prompt(arm)
        if arm is Arm.QUERIES:
            texts = self._queries.perturbed(texts)
        begun = time.monotonic()
        if self.config.task.answer is not None:
            result["scores"] = self._written(arm, prompt, texts)
        else:
            judge = self._own if arm is self.config.own else self._judge(arm, prompt)
            result["scores"] = self._labelled(judge, texts)
            if judge.offset is not None:
                result["offset"] = self._constants(judge)
        return result | {"seconds": round(time.monotonic() - begun, 1)}

    def _prompt(self, arm: Arm) -> Tensor | None:
        if arm is Arm.ZERO_SHOT:
            return None
        if arm in (Arm.STUDENT, Arm.DIRECT, Arm.INFERENCE):
            return rows_of(self.release.payload)
        if self.moved is None:
            raise RefusedInput("post: the server sent no prompt for the large model; run its step again")
        return rows_of(self.moved, self.large.net.width)

    def _judge(self, arm: Arm, prompt: Tensor | None) -> Reader | ShiftedReader:
        if arm is Arm.INFERENCE:
            assert prompt is not None
            return ShiftedReader(self.large, self.small, prompt, self._full)
        reader = (self.small if arm is Arm.STUDENT else self.large).behind(prompt)
        if arm is Arm.QUERIES and reader.public:  # perturbed texts have a balance of their own
            return replace(reader, public=tuple(self._queries.perturbed(reader.public)))
        return reader

    @cached_property
    def _own(self) -> Reader | ShiftedReader:
        """What new texts are labelled by."""
        return self._judge(self.config.own, self._prompt(self.config.own))

    def _constants(self, judge: Reader | ShiftedReader) -> dict[str, float]:
        """What is taken off each label's score."""
        assert judge.offset is not None
        return dict(zip(self.task.labels, judge.offset.tolist(), strict=True))

    def _labelled(self, judge: Reader | ShiftedReader, texts: Sequence[str]) -> dict[str, float]:
        assert self.held is not None
        found = [self.task.labels[i] for i in judge.class_scores(texts).argmax(-1).tolist()]
        return label_scores(found, list(self.held.label or ()), self.task.labels)

    def _written(self, arm: Arm, prompt: Tensor | None, texts: Sequence[str]) -> dict[str, float]:
        assert self.held is not None
        reader = (self.small if arm is Arm.STUDENT else self.large).behind(prompt)
        if arm is Arm.INFERENCE:
            behind, bare = self.small.behind(prompt), self.large

            def scores(rows: Sequence[Row]) -> Tensor:
                return shifted(bare.last_scores(rows), behind.last_scores(rows), self.small.last_scores(rows))
        else:
            scores = reader.last_scores
        found = written(reader.layout, texts, scores)
        wanted = [answer.strip() for answer in self.held.columns[str(self.config.task.answer)]]
        return {"exact": float(np.mean([a == b for a, b in zip(found, wanted, strict=True)]))}

    def _texts(self) -> list[str]:
        assert self.held is not None
        return list(self.held.text)

    @cached_property
    def _full(self) -> bool:
        return same_vocabulary(self.small.net, self.large.net)

    @cached_property
    def _queries(self) -> PrivateQueries:
        folder = StudentStore(self.config.distillation.store).path(str(self.student["name"]))
        return PrivateQueries(folder, self.config.inference, delta=self.site.budget.delta)

    def _tuned_on_large(self) -> Tensor:
        """A prompt tuned on the large model with the run's own settings and epsilon; it is shown to nobody.

        It is not charged, since nothing of it leaves: not the prompt, not its score.
        """
        lesson = lesson_of(self.large, self.task, self.config, self.site.data.load())
        # All of it: the transferred prompt has the counts' share beside what its tuning had.
        privacy = replace(privacy_of(self.site, self.config), budget=self.site.budget)
        return self._tune(self.large, lesson, privacy, "target-prompt", self.site.progress)

    def _tune(self, reader: Reader, lesson: Lesson, privacy: Privacy, place: str, progress: Progress) -> Tensor:
        folder = self.site.folder / place
        smaller = min(self.config.tuning.batch_size, len(lesson))  # than all records, for a half of them
        tuning = self.config.tuning.model_copy(update={"batch_size": smaller})
        start = initial_rows(reader.net, self.config.prompt.text, self.config.prompt.tokens)
        if not tuning.private:
            found = tune_plainly(
                reader.net, lesson, reader.calibrated, start, tuning, name=place, seed=self.site.seed, folder=folder,
                progress=progress,
            )  # fmt: skip
            return rows_of(found)
        own = replace(privacy, budget=replace(privacy.budget, ledger=None), purpose=f"{privacy.purpose}: {place}")
        release = tune_privately(
            reader.net, lesson, reader.calibrated, start, tuning, own, width=reader.layout.width, name=place,
            folder=folder, progress=progress,
        )  # fmt: skip
        return rows_of(release.payload)

    def _membership(self) -> dict[str, Any]:
        """LiRA against prompts tuned like the released one on halves of the private rows.

        It reads class probabilities as the prompts' users do: calibrated behind each, if the task is.
        """
        reader = self.small
        if reader.verbalizer is None:
            raise RefusedInput("post.membership: the attack reads class probabilities; leave it out for generation")
        lesson = lesson_of(reader, self.task, self.config, self.site.data.load())
        task = self.site.progress.task("tuning prompts on halves", self.config.membership.models, "prompts")

        def tuned(k: int, indices: np.ndarray) -> np.ndarray:
            privacy = replace(privacy_of(self.site, self.config), size=len(indices))
            rows = self._tune(reader, lesson.some(indices.tolist()), privacy, f"half-{k}", NoProgress())
            task.advance(1)
            behind = reader.behind(rows)
            assert behind.calibrated is not None
            return class_probabilities(reader.net, lesson.rows, behind.calibrated, behind.prompt).numpy()

        found = membership.attack(
            tuned, np.array(lesson.classes), models=self.config.membership.models, seed=self.site.seed
        )
        return found.to_json()


def label_scores(found: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy and macro F1 over the declared labels."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, labels=list(labels), average="macro", zero_division=0)),
    }


def transferred_card(
    guarantee: Guarantee, config: POSTConfig, task: Task, large: str, constants: Mapping[str, float] | None = None
) -> str:
    """The README of a transferred prompt: the guarantee it inherits, and all that it takes to label texts with it.

    `large`: the digest of the model that it belongs to; `constants`: what each label's score is to be taken less.
    """
    return (
        f"# A soft prompt for the large model\n\n{guarantee}\n\n"
        "That is the guarantee of what was released of private records: the small model's prompt, and noisy counts\n"
        "beside it if there were any. This prompt was made from that and public texts alone (post-processing).\n\n"
        f"It belongs to the model whose files have the digest {large}.\n" + _usage(config, task, constants)
    )


def _usage(config: POSTConfig, task: Task, constants: Mapping[str, float] | None) -> str:
    asked = (
        f"\nThe model reads the prompt, then a text, then {task.cue!r}; text and cue are tokenised apart and have at\n"
        f"most {config.task.max_length} tokens together, a longer text losing its end.\n"
    )
    if not task.labels:
        return f"{asked}What it writes next, likeliest token by token, is the answer.\n"
    mean = "mean logit" if task.score == "logit" else "log of the mean probability"
    words = "".join(f"- {label}: {', '.join(words)}\n" for label, words in zip(task.labels, task.words, strict=True))
    found = (
        f"{asked}There (at the mask, or at the last token) a label's score is the {mean} of the\n"
        f"first tokens of its words, each with a space before it:\n\n{words}\n"
        "Probabilities are the softmax of the scores over the labels.\n"
    )
    if not config.task.calibrate:
        return found
    if constants is None:
        return (
            f"{found}Scores are meant calibrated, and were not, since the run had no large model in its process: take\n"
            "off each its mean over public texts behind this prompt first.\n"
        )
    less = "".join(f"- {label}: {value:.6f}\n" for label, value in constants.items())
    return (
        f"{found}Before that each score is taken less its constant, made of public texts; only differences of the\n"
        f"constants count, since what normalises probabilities over the vocabulary is left out of them:\n\n{less}"
    )


def own_class_probabilities(
    target: Backend, outcome: Outcome, task: Task, config: POSTConfig, texts: Sequence[str], progress: Progress
) -> np.ndarray:
    """Class probabilities of new texts by what a run handed over, [n, C]; nothing leaves this process."""
    offset = outcome.notes.get(CALIBRATION)
    if config.task.calibrate and offset is None:
        raise RefusedInput(
            "post: this run kept no calibration, because it had no large model in its process; run it again with the "
            "role `local_target`"
        )

    def reader(net: Net) -> Reader:
        return make_reader(net, task, config.task.max_length, prompt_tokens=config.prompt.tokens)

    large = reader(open_role(target))
    assert isinstance(outcome.model, SoftPrompt)
    rows = rows_of(outcome.model)
    judge: Reader | ShiftedReader = large.behind(rows)
    if config.own is not Arm.POST:
        student = outcome.notes["student"]
        folder = StudentStore(config.distillation.store).take(str(student["name"]), str(student["sha256"]))
        small = reader(open_net(folder, target.options))
        judge = ShiftedReader(large, small, rows, same_vocabulary(small.net, large.net))
    scores = judge.class_scores(texts).double()
    if offset is not None:  # the run's own: nobody reads the public texts again
        scores = scores - torch.tensor([offset[label] for label in task.labels], dtype=scores.dtype)
    return torch.softmax(scores, -1).numpy()

"""Prompt tuning on frozen weights: plain, or private with one record's gradient bounded at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from privkt.contracts import Privacy, Progress, SoftPrompt
from privkt.dpsgd.training import PrivateTraining
from privkt.privacy import Release
from privkt_post import loops
from privkt_post.config import TuningConfig
from privkt_post.inputs import Row, collate, scores_at
from privkt_post.networks import Net
from privkt_post.prompts import prompt_parameter, to_message, wrapped
from privkt_post.verbalizers import Verbalizer

_TOKENS_AT_ONCE = {"cpu": 2048}
_TOKENS_ELSEWHERE = 32_768
PLAIN_CARD = "# A soft prompt for {name}\n\nTuned by privkt without any privacy: it may hold whatever its data holds.\n"


@dataclass(frozen=True)
class Lesson:
    """Rows with the class of each, or, for written answers, none: their own targets are wanted."""

    rows: tuple[Row, ...]
    classes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, indices: Sequence[int]) -> Lesson:
        """The rows with these indices."""
        classes = None if self.classes is None else tuple(self.classes[i] for i in indices)
        return Lesson(tuple(self.rows[i] for i in indices), classes)


def lesson_losses(
    net: Net, lesson: Lesson, verbalizer: Verbalizer | None, prompt: Tensor, width: int | None = None
) -> Tensor:
    """Each row's loss, [b]: cross-entropy over class scores, or over the vocabulary summed over answer positions."""
    batch = collate(net, lesson.rows, width)
    logits = scores_at(net, batch, prompt)
    if lesson.classes is not None and verbalizer is not None:
        goal = torch.tensor(lesson.classes, device=net.device)
        return F.cross_entropy(verbalizer.scores(logits), goal, reduction="none")
    goal = torch.tensor([t for row in lesson.rows for t in row.targets], device=net.device)
    each = F.cross_entropy(logits, goal, reduction="none")
    return each.new_zeros(len(lesson)).index_add(0, batch.owners, each)


def rows_at_once(config: TuningConfig, net: Net, width: int) -> int:
    """Rows of one forward and backward pass."""
    if config.microbatch_size != "auto":
        return int(config.microbatch_size)
    return max(1, min(config.batch_size, _TOKENS_AT_ONCE.get(net.device.type, _TOKENS_ELSEWHERE) // max(1, width)))


def course_of(config: TuningConfig, size: int) -> loops.Course:
    """Optimizer and schedule, the same with and without privacy."""
    return loops.Course(config.steps(size), config.learning_rate, optimizer=config.optimizer, schedule=config.schedule)


def tune_privately(
    net: Net,
    lesson: Lesson,
    verbalizer: Verbalizer | None,
    start: Tensor,
    config: TuningConfig,
    privacy: Privacy,
    *,
    width: int,
    name: str,
    folder: Path | None,
    progress: Progress,
) -> Release[SoftPrompt]:
    """DP-SGD on the prompt's rows alone; the release carries its guarantee and a privacy card.

    `width`: the public length that every row is padded to, so that no record's length changes how another's rounds.
    Guarantee: that of `PrivateTraining.plan`; the weights of `net` do not move.
    """
    model = wrapped(net, start)
    course = course_of(config, privacy.size)
    optimizer = course.make_optimizer([prompt_parameter(model)])
    owner: Any = model
    # One place more than any record fills: batches with and without padding may take different kernels.
    padded = width + 1
    with torch.enable_grad():
        training = PrivateTraining(
            model,
            optimizer,
            list(range(len(lesson))),
            collate_fn=list,
            budget=privacy.budget,
            size=privacy.size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            microbatch_size=rows_at_once(config, net, padded + len(start)),
            max_grad_norm=config.max_grad_norm,
            run_id=privacy.run_id,
            purpose=privacy.purpose,
            fingerprint=privacy.fingerprint,
            data_set_id=privacy.data_set_id,
            data_changed=privacy.data_changed,
            checkpoint=folder,
            scheduler=course.make_scheduler(optimizer),
            model_name=name,
            progress=progress,
        )
        for part in training:
            prompt = owner.get_prompt(batch_size=len(part))
            training.step(lesson_losses(net, lesson.some(part), verbalizer, prompt, padded))
    return training.finish()


def tune_plainly(
    net: Net,
    lesson: Lesson,
    verbalizer: Verbalizer | None,
    start: Tensor,
    config: TuningConfig,
    *,
    name: str,
    seed: int,
    folder: Path | None,
    progress: Progress,
) -> SoftPrompt:
    """Ordinary prompt tuning. Guarantee: none; the weights of `net` do not move."""
    model = wrapped(net, start)
    parameter = prompt_parameter(model)
    course = replace(course_of(config, len(lesson)), clip=config.max_grad_norm)
    batch = min(config.batch_size, len(lesson))

    def backward(step: int) -> float:
        chosen = sorted(loops.order(len(lesson), batch, step, seed), key=lambda i: len(lesson.rows[i].ids))
        piece = rows_at_once(config, net, max(len(lesson.rows[i].ids) for i in chosen) + len(start))
        total = 0.0
        with torch.enable_grad():
            for first in range(0, batch, piece):
                part = lesson.some(chosen[first : first + piece])
                loss = lesson_losses(net, part, verbalizer, parameter).sum() / batch
                loss.backward()
                total += float(loss.detach())
        return total

    loops.run(
        {"prompt": parameter},
        backward,
        course,
        checkpoint=None if folder is None else folder / "prompt.pt",
        identity=f"{name}|{seed}|{config.model_dump_json()}|{len(lesson)}|{_constants(verbalizer)}",
        task=progress.task(f"tuning a prompt on {name}", course.steps, "steps"),
    )
    return to_message(net, parameter, name=name, card=PLAIN_CARD.format(name=name))


def _constants(verbalizer: Verbalizer | None) -> list[float] | None:
    """What is taken off the classes' scores: with other public texts it is another training."""
    return None if verbalizer is None or verbalizer.offset is None else verbalizer.offset.tolist()

"""The client's part before the transfer: tuning the prompt, and counting with noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privkt.contracts import ClientSite, Privacy, Rows, SoftPrompt, Texts
from privkt.privacy import Guarantee, Provenance, RefusedInput, Release, none_event
from privkt_post import counting, planning
from privkt_post.answering import Reader
from privkt_post.candidates import load_public, sampled, votes
from privkt_post.config import POSTConfig
from privkt_post.inputs import read_at_one_shape
from privkt_post.networks import Net, open_net, width_of
from privkt_post.prompts import initial_rows, rows_of
from privkt_post.queries import PrivateQueries
from privkt_post.readers import reader_of
from privkt_post.store import StudentStore
from privkt_post.tasks import Task, make_task
from privkt_post.tuning import Lesson, tune_plainly, tune_privately


def open_student(site: ClientSite, config: POSTConfig, student: Mapping[str, Any]) -> Net:
    """The published small model, in the precision and place of the client's large one, if it has one."""
    folder = StudentStore(config.distillation.store).take(str(student["name"]), str(student["sha256"]))
    local = site.models.get("local_target")
    return open_net(folder, None if local is None else local.options)


def lesson_of(reader: Reader, task: Task, config: POSTConfig, rows: Rows) -> Lesson:
    """Rows as what a prompt is tuned on. Raises RefusedInput, for rows without the labels or answers of the task."""
    if config.task.answer is not None:
        if config.task.answer not in rows.columns:
            raise RefusedInput(
                f"post.task.answer: the data must have the column {config.task.answer!r}, and does not; list it under "
                "`columns`"
            )
        return Lesson(tuple(reader.layout.rows(rows.text, rows.columns[config.task.answer])))
    if rows.label is None:
        raise RefusedInput("post: the data must have labels, got none; name their column under `label`")
    number = {label: i for i, label in enumerate(task.labels)}
    return Lesson(tuple(reader.layout.rows(rows.text)), tuple(number[label] for label in rows.label))


def need_usable_prompt(site: ClientSite, config: POSTConfig, student: Mapping[str, Any], width: int) -> None:
    """Refuses, before anything is spent, what would be refused once the prompt has left and is paid.

    `width`: the length of an embedding of the provider's large model, as the provider tells it.
    Raises: RefusedInput, for a `local_target` of another width, whose prompt the transferred one cannot be, and for a
        mechanism of `inference` that cannot be made over the small model's vocabulary.
    """
    local = site.models.get("local_target")
    if local is not None and not local.remote and config.transfer.variant != "inference":
        mine = width_of(local.weights_folder())
        if mine != width:
            raise RefusedInput(
                f"models.local_target: must be the provider's `target`, whose embeddings have {width} numbers, and its "
                f"own have {mine}; name the same model for both"
            )
    if config.inference.mechanism is not None:
        folder = StudentStore(config.distillation.store).take(str(student["name"]), str(student["sha256"]))
        PrivateQueries(folder, config.inference, delta=site.budget.delta)


def tune_prompt(site: ClientSite, config: POSTConfig, student: Mapping[str, Any]) -> Release[SoftPrompt]:
    """The client's prompt for the small model, with its guarantee."""
    for data in config.transfer.public if config.votes else ():
        load_public(data)  # votes need every set, and nothing is spent yet
    task = make_task(config.task, site.data.labels)
    net = open_student(site, config, student)
    reader = reader_of(net, task, config)  # calibrated without a prompt: what is behind one moves with every step
    lesson = lesson_of(reader, task, config, site.data.load())
    start = initial_rows(net, config.prompt.text, config.prompt.tokens)
    name = f"student-{student['name']}"
    if not config.tuning.private:
        prompt = tune_plainly(
            net, lesson, reader.calibrated, start, config.tuning, name=name, seed=site.seed,
            folder=site.folder / "prompt", progress=site.progress,
        )  # fmt: skip
        reason = "the prompt was tuned without noise (tuning.private: false)"
        guarantee = Guarantee.none(reason, unit=site.budget.unit, neighbouring=site.budget.neighbouring)
        return Release(prompt, guarantee, none_event(), Provenance("privkt:prompt-tuning", "1", site.data_set_id))
    return tune_privately(
        net,
        lesson,
        reader.calibrated,
        start,
        config.tuning,
        privacy_of(site, config),
        width=reader.layout.width,
        name=name,
        folder=site.folder / "prompt",
        progress=site.progress,
    )


def privacy_of(site: ClientSite, config: POSTConfig) -> Privacy:
    """What the prompt's tuning charges, and to whom."""
    return Privacy(
        budget=planning.tuning_budget(config, site.budget),
        size=site.data.size,
        run_id=site.run_id,
        purpose=planning.PURPOSE,
        fingerprint=site.data.fingerprint,
        data_set_id=site.data_set_id,
        data_changed=site.data.data_changed,
    )


def count(
    site: ClientSite, config: POSTConfig, student: Mapping[str, Any], prompt: Release[SoftPrompt]
) -> Release[Texts]:
    """The noisy counts that the transfer is told: correct answers of both models, votes for public sets.

    In float32 and at one shape, so that one record moves a count by what it adds to it, and by no rounding of others.
    Raises: RefusedInput, for answers behind a prompt that promises nothing: one record moves all of them.
    """
    task = make_task(config.task, site.data.labels)
    rows = site.data.load()
    local = site.models.get("local_target")
    options = {**({} if local is None else local.options), "dtype": "float32"}
    folder = StudentStore(config.distillation.store).take(str(student["name"]), str(student["sha256"]))
    small = reader_of(open_net(folder, options), task, config)
    shares = counting.shares_of(config, site.budget.neighbouring)
    pair = None
    if shares.each:
        need_release(prompt)
        large = reader_of(open_net(site.model("local_target").weights_folder(), options), task, config)
        tuned = small.behind(rows_of(prompt.payload, small.net.width))
        pair = correct(large, rows), correct(tuned, rows)
    found: list[int] = []
    if shares.vote:
        sets = []
        for data in config.transfer.public:
            public = load_public(data)
            chosen = sampled(public, config.transfer.samples, 0)
            sets.append(small.layout.rows([public.text[i] for i in chosen]))
        found = votes(small.net, small.layout.rows(rows.text), sets, small.layout.width + 1)
    return counting.release(site, config, pair, found)


def need_release(prompt: Release[SoftPrompt]) -> None:
    """Raises RefusedInput for a prompt that promises nothing: one record moves every answer behind it."""
    if not prompt.guarantee.is_private:
        raise RefusedInput(
            "post: correct answers are counted behind a prompt that is a private release, and this one promises "
            "nothing; give transfer.alpha as a number or `public`"
        )


def correct(reader: Reader, rows: Rows) -> int:
    """How many rows get their own label, before any noise; each is judged as if it were alone."""
    verbalizer = reader.calibrated
    assert verbalizer is not None
    labels, width = verbalizer.labels, reader.layout.width + 1
    found = read_at_one_shape(reader.net, reader.layout.rows(rows.text), width, reader.prompt)
    judged = (labels[int(verbalizer.scores(scores).argmax())] for scores in found)
    return sum(one == label for one, label in zip(judged, rows.label or (), strict=True))

"""A model as a run's config reads texts with it, the same at the provider and at the client."""

from __future__ import annotations

from privkt_post.answering import Reader, make_reader
from privkt_post.candidates import load_public, sampled
from privkt_post.config import POSTConfig
from privkt_post.networks import Net
from privkt_post.tasks import Task


def reader_of(net: Net, task: Task, config: POSTConfig) -> Reader:
    """A reader of the task's texts for a model, calibrated if the config says so.

    Raises: RefusedInput, for words or lengths that the model cannot take, or public texts that are not there.
    """
    public: tuple[str, ...] = ()
    if config.task.calibrate:
        rows = load_public(config.transfer.public[0])
        public = tuple(rows.text[i] for i in sampled(rows, config.transfer.samples, 0))
    return make_reader(
        net,
        task,
        config.task.max_length,
        prompt_tokens=config.prompt.tokens,
        answer_tokens=config.task.answer_tokens if config.task.answer else 0,
        public=public,
    )

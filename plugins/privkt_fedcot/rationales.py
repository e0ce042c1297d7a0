"""Asking for rationales: one question a prompt, answers kept where prompts are public or released."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from privkt.contracts import Backend, Progress, Prompt, Sampling
from privkt.synthesis.asking import ask, uses_chat
from privkt_fedcot.config import RationaleConfig
from privkt_fedcot.fitting import fitted
from privkt_fedcot.prompts import STOP, cleaned, rationale_prompt, worked_example
from privkt_fedcot.tasks import Question, Task


def explain(
    questions: Sequence[Question],
    task: Task,
    model: Backend,
    config: RationaleConfig,
    *,
    seed: int,
    journal: Path | None,
    progress: Progress | None = None,
    title: str = "writing rationales",
) -> list[str]:
    """One rationale a question, in order; an empty one where the model wrote none.

    `journal`: for questions that are released or public; None keeps nothing.
    """
    chat = uses_chat(model, config.layout)
    worked = worked_example(task, config.worked)
    prompts: list[Prompt]
    if chat:
        prompts = [rationale_prompt(question, task, worked, chat=True) for question in questions]
    else:

        def build(_: int, question: Question) -> str:
            return str(rationale_prompt(question, task, worked, chat=False))

        prompts = list(fitted(model, questions, build, config.max_tokens))
    answers = ask(
        model,
        prompts,
        Sampling(
            max_new_tokens=config.max_tokens, temperature=config.temperature, stop=() if chat else STOP, seed=seed
        ),
        journal=journal,
        portion=config.portion,
        progress=progress,
        title=title,
    )
    return [cleaned(answer.text) for answer in answers]

"""Many prompts asked of a model in portions; every portion's answers are on disk before the next is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from privkt.contracts import Backend, Capability, Generation, NoProgress, Progress, Prompt, Sampling, public_digest


def ask(
    backend: Backend,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    journal: Path | None = None,
    portion: int = 128,
    progress: Progress | None = None,
    title: str = "asking the model",
) -> list[Generation]:
    """One answer a prompt, in order, resumed after the last whole portion that the journal holds.

    `journal`: a file in the site's own folder, for prompts of released or public text only; None keeps nothing.
    Guarantee: a journal of other prompts, of a backend of another name, or of other sampling is not used, and is
        replaced. A backend keeps its name whatever weights are over it: answers of other weights want another file.
    """
    task = (progress or NoProgress()).task(title, len(prompts), "answers")
    head = ""
    answers: list[Generation] = []
    if journal is not None:
        head = public_digest(backend.name, json.dumps(asdict(sampling), sort_keys=True), *map(_plain, prompts))
        answers = _read(journal, head)[: len(prompts)]
        if not answers:
            _append(journal, [json.dumps({"asked": head})], new=True)
        task.advance(len(answers), note="from the journal")
    while len(answers) < len(prompts):
        start = len(answers)
        seed = None if sampling.seed is None else sampling.seed + start
        batch = backend.generate(prompts[start : start + portion], replace(sampling, seed=seed))
        if journal is not None:
            _append(journal, [json.dumps(asdict(answer)) for answer in batch])
        answers.extend(batch)
        task.advance(len(batch))
    return answers


def uses_chat(llm: Backend, layout: str) -> bool:
    """Whether prompts are conversations: as configured, or where the backend cannot continue plain text."""
    if layout != "auto":
        return layout == "chat"
    can = llm.probe()
    return Capability.CHAT in can and Capability.GENERATE not in can


def _plain(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else json.dumps([asdict(turn) for turn in prompt])


def _read(journal: Path, head: str) -> list[Generation]:
    if not journal.exists():
        return []
    lines = journal.read_text(encoding="utf-8").split("\n")
    # What follows the last line break was cut off by a crash.
    whole = lines[:-1]
    if not whole or json.loads(whole[0]) != {"asked": head}:
        return []
    return [Generation(**json.loads(line)) for line in whole[1:]]


def _append(journal: Path, lines: list[str], *, new: bool = False) -> None:
    journal.parent.mkdir(parents=True, exist_ok=True)
    if not new:
        _drop_torn_line(journal)
    with journal.open("w" if new else "a", encoding="utf-8", newline="\n") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_line(journal: Path) -> None:
    data = journal.read_bytes()
    if data and not data.endswith(b"\n"):
        journal.write_bytes(data[: data.rfind(b"\n") + 1])

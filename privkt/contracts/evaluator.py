"""Evaluators: usefulness, attacks and audits, all local to the site that runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class EvaluationKind(StrEnum):
    """Usefulness: how good the result is. Attack: what leaks. Audit: a lower bound on epsilon."""

    USEFULNESS = "usefulness"
    ATTACK = "attack"
    AUDIT = "audit"


@dataclass(frozen=True)
class Judged:
    """What an evaluator is given: predictions beside references, or released beside private texts."""

    predictions: Sequence[str]
    references: Sequence[str]
    labels: Sequence[str] = ()


class Evaluator(ABC):
    """Turns `Judged` into named numbers. Results over private data stay local (an `Outcome`)."""

    kind: EvaluationKind = EvaluationKind.USEFULNESS

    @abstractmethod
    def evaluate(self, judged: Judged) -> Mapping[str, float]:
        """{metric: value}; empty input is refused by name."""

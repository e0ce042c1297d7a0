"""LiRA: can somebody who has a tuned prompt tell which records it was tuned on? Kept by the client.

References: Carlini et al. 2022, "Membership Inference Attacks From First Principles", Algorithm 1 (online, with one
    variance for all records, as they advise for few models).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_SMALLEST_VARIANCE = 1e-12
_FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class Attack:
    """How well it went, over all models taken in turn as the one attacked: means, and the deviation of the AUC."""

    auc: float
    auc_deviation: float
    tpr_at_1_percent: float
    models: int
    records: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for the local report, with what they are."""
        return {
            "statistic": "log-likelihood ratio of the logit of the true class's probability",
            "auc": self.auc,
            "auc_deviation": self.auc_deviation,
            "tpr_at_1_percent_fpr": self.tpr_at_1_percent,
            "models": self.models,
            "records": self.records,
            "meaning": (
                "what this one attack finds of prompts tuned on half of the records, which draw each twice as often as "
                "the run did; no bound on what leaks, so that passing proves nothing; it stays local"
            ),
        }


def halves(models: int, records: int, seed: int) -> np.ndarray:
    """Which records each model is tuned on, [models, records]: every record in half of the models.

    Edge cases: with an odd number of models, in the smaller half of them.
    """
    draw = np.random.default_rng(seed)
    ranks = draw.random((models, records)).argsort(0).argsort(0)
    return ranks < models // 2


def attack(tuned: Callable[[int, np.ndarray], np.ndarray], labels: np.ndarray, *, models: int, seed: int) -> Attack:
    """`tuned(k, indices)` tunes model k on these records and gives class probabilities of all of them, [n, C]."""
    inside = halves(models, len(labels), seed)
    rows = [confidences(tuned(k, np.flatnonzero(inside[k])), labels) for k in range(models)]
    return judged(np.stack(rows), inside)


def confidences(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of each record's true class, [n]: near to normal, where p itself is not."""
    p = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    others = probabilities.astype(np.float64).sum(1) - p
    return np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(others, 1e-30))


def judged(found: np.ndarray, inside: np.ndarray) -> Attack:
    """The attack on each model by the others. Shapes: found, inside: [models, records]."""
    aucs, rates = [], []
    for k in range(len(found)):
        scores = ratios(found, inside, k)
        aucs.append(auc(scores, inside[k]))
        rates.append(tpr_at(scores, inside[k], _FALSE_ALARMS))
    deviation = float(np.std(aucs, ddof=1)) if len(aucs) > 1 else 0.0
    return Attack(float(np.mean(aucs)), deviation, float(np.mean(rates)), len(found), found.shape[1])


def ratios(found: np.ndarray, inside: np.ndarray, k: int) -> np.ndarray:
    """log N(c | in) - log N(c | out) of every record for model k, from the other models alone, [records].

    Edge cases: a record that no other model has seen (or that all have) is judged by the mean of all records' means.
    """
    others = np.arange(len(found)) != k
    values, member = found[others], inside[others]
    means, spread = [], []
    for side in (member, ~member):
        count = side.sum(0)
        total = np.where(side, values, 0.0).sum(0)
        mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        mean = np.where(np.isnan(mean), np.nanmean(mean), mean)
        means.append(mean)
        spread.append((np.where(side, values - mean, 0.0) ** 2).sum() / max(1, (count - (count > 0)).sum()))
    variance = [max(_SMALLEST_VARIANCE, s) for s in spread]
    own = found[k]
    logs = [-((own - m) ** 2) / (2 * v) - 0.5 * np.log(v) for m, v in zip(means, variance, strict=True)]
    return logs[0] - logs[1]


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """The chance that a member's score is above a non-member's, ties counting half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    inside, outside = int(member.sum()), int((~member).sum())
    return float((ranks[member].sum() - inside * (inside + 1) / 2) / (inside * outside))


def tpr_at(scores: np.ndarray, member: np.ndarray, false_alarms: float) -> float:
    """The share of members above the lowest threshold that at most this share of non-members passes."""
    outside = np.sort(scores[~member])[::-1]
    allowed = int(np.floor(false_alarms * len(outside)))
    return float((scores[member] > outside[allowed]).mean()) if allowed < len(outside) else 1.0

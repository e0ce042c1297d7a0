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
_CONFIDENCE, _RESAMPLED = 0.95, 400


@dataclass(frozen=True)
class Attack:
    """How well it went, over all models taken in turn as the one attacked: means.

    Units: `auc_low`, `auc_high`: the middle 95 % of the mean AUC over resampled records (bootstrap); the models are
        held fixed, and so is the attack.
    """

    auc: float
    auc_low: float
    auc_high: float
    tpr_at_1_percent: float
    models: int
    records: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for the local report, with what they are."""
        return {
            "statistic": "log-likelihood ratio of the logit of the true class's probability",
            "auc": self.auc,
            "auc_95_percent": [self.auc_low, self.auc_high],
            "tpr_at_1_percent_fpr": self.tpr_at_1_percent,
            "models": self.models,
            "records": self.records,
            "meaning": (
                "what this one attack finds of prompts tuned on half of the records, which draw each twice as often as "
                "the run did; no bound on what leaks, so that passing proves nothing; it stays local"
            ),
        }


def halves(models: int, records: int, seed: int) -> np.ndarray:
    """Which records each model is tuned on, [models, records]: models 2j and 2j + 1 share them out between them.

    Model k is judged without itself and its complement, and so every record by as many models with it as without. Were
    models drawn one by one, a record of model k would be left with fewer models that have seen it than one that k has
    not seen, its mean with them would be the noisier one, and the ratio smaller because it is a member.
    Raises: ValueError, for an odd number of models.
    """
    if models % 2:
        raise ValueError(f"models must be an even number, got {models}")
    draw = np.random.default_rng(seed)
    first = np.stack([draw.permutation(records) < (records + 1) // 2 for _ in range(models // 2)])
    return np.stack([first, ~first], 1).reshape(models, records)


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
    scores = np.stack([ratios(found, inside, k) for k in range(len(found))])
    rates = [tpr_at(own, member, _FALSE_ALARMS) for own, member in zip(scores, inside, strict=True)]
    draw, records = np.random.default_rng(0), found.shape[1]
    again = [mean_auc(scores, inside, chosen) for chosen in draw.integers(0, records, (_RESAMPLED, records))]
    low, high = np.nanquantile(again, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    middle = mean_auc(scores, inside, np.arange(records))
    return Attack(middle, float(low), float(high), float(np.mean(rates)), len(found), records)


def mean_auc(scores: np.ndarray, inside: np.ndarray, chosen: np.ndarray) -> float:
    """The mean AUC over models, on some records; nan where all or none of them belong to a model."""
    pairs = [(own[chosen], member[chosen]) for own, member in zip(scores, inside, strict=True)]
    if any(member.all() or not member.any() for _, member in pairs):
        return float("nan")
    return float(np.mean([auc(own, member) for own, member in pairs]))


def ratios(found: np.ndarray, inside: np.ndarray, k: int) -> np.ndarray:
    """log N(c | in) - log N(c | out) of every record for model k, from all models but k and its complement, [records].

    Edge cases: a record that no other model has seen (or that all have) is judged by the mean of all records' means.
    """
    others = np.arange(len(found)) // 2 != k // 2
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

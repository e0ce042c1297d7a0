"""Token mechanisms whose law is whatever matrix a test gives, drawn from a fixed seed."""

import math

import numpy as np

from privkt.contracts.tokens import TokenMechanism
from privkt.privacy import Certificate, Guarantee, Kind, Neighbouring, Unit, pure_event


class Matrix(TokenMechanism):
    """Draws by `drawn` (the law itself if left out), and says it draws by `law`, at a claimed epsilon."""

    name, version = "matrix", "1"

    def __init__(self, law, claimed=None, *, drawn=None, seed=0, known=True):
        self.law = np.asarray(law, dtype=float)
        self.drawn = np.cumsum(self.law if drawn is None else drawn, axis=1)
        self.size, self.known = len(self.law), known
        with np.errstate(divide="ignore"):
            logs = np.log(self.law)
        self.claimed = float((logs.max(0) - logs.min(0)).max()) if claimed is None else claimed
        self.generator = np.random.default_rng(seed)
        self.widest = 0

    @property
    def has_law(self):
        return self.known

    @property
    def certificate(self):
        return Certificate(self.claimed, self.claimed)

    @property
    def guarantee(self):
        if math.isinf(self.claimed):
            return Guarantee.none("a word is told in clear", unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL)
        return Guarantee(Kind.PURE, self.claimed, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL, proof="a test")

    def event(self):
        return pure_event(self.claimed)

    def sample_ids(self, ids):
        self.need_ids(ids)
        points = self.generator.random(len(ids))
        found = np.empty(len(ids), dtype=np.int64)
        for word in np.unique(ids):
            mine = ids == word
            found[mine] = np.searchsorted(self.drawn[word], points[mine], side="right")
        return np.minimum(found, self.size - 1)

    def probabilities(self, ids):
        assert self.known
        self.widest = max(self.widest, len(ids))
        return self.law[ids]


def random_law(size, seed=0, sharpness=2.0):
    """Rows that favour nobody in particular."""
    weights = np.exp(sharpness * np.random.default_rng(seed).normal(size=(size, size)))
    return weights / weights.sum(axis=1, keepdims=True)


def response(size, epsilon):
    """k-ary randomised response."""
    law = np.ones((size, size)) + (math.exp(epsilon) - 1) * np.eye(size)
    return law / law.sum(axis=1, keepdims=True)

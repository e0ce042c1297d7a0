"""A small exact token mechanism and a word vocabulary, for tests of what is built on them."""

import math
import secrets

import numpy as np

from privkt.contracts import Privacy
from privkt.contracts.tokens import TokenMechanism
from privkt.privacy import Budget, Certificate, Guarantee, Kind, Ledger, Neighbouring, Unit, pure_event
from privkt.synthesis.word_vocabulary import WordVocabulary

ONE = 1 << 20
WORDS = ("a", "the", "visit", "was", "cold", "warm", "rude", "kind", "1", "2", "3", ",", ".", "don't", "Anna")


def vocabulary(words=WORDS):
    """Words with vectors that differ."""
    angles = np.arange(len(words)) * 0.4
    return WordVocabulary(words, np.stack([np.cos(angles), np.sin(angles), 1 + angles], axis=1).astype(np.float32))


class Toy(TokenMechanism):
    """Integer weights of randomised response: `top` for the token itself, ONE for every other row."""

    name, version = "toy", "1"

    def __init__(self, table, epsilon, *, bounded=True):
        self.size, self.epsilon, self.bounded = len(table), epsilon, bounded
        self.top = int(ONE * math.exp(min(epsilon, 500) if not bounded else epsilon / 2))
        self.calls = []

    @property
    def certificate(self):
        exact = math.log(self.top / ONE) * (1 + 2**-40)
        return Certificate(2 * exact, exact, bounded_range=self.bounded)

    @property
    def guarantee(self):
        return Guarantee(
            Kind.PURE, self.certificate.epsilon, unit=Unit.TOKEN, neighbouring=Neighbouring.LOCAL, proof="a toy"
        )

    def event(self):
        return pure_event(self.certificate.epsilon)

    def sample_ids(self, ids):
        self.need_ids(ids)
        self.calls.append(ids.copy())
        total = self.top + (self.size - 1) * ONE
        return np.asarray([self._one(int(i), secrets.randbelow(total)) for i in ids], dtype=np.int64)

    def _one(self, token, point):
        if point < self.top:
            return token
        other = (point - self.top) // ONE
        return other if other < token else other + 1

    def probabilities(self, ids):
        rows = np.full((len(ids), self.size), ONE, dtype=np.float64)
        rows[np.arange(len(ids)), ids] = self.top
        return rows / rows.sum(1, keepdims=True)

    def parameters(self):
        return {"epsilon": self.epsilon}


def privacy(ledger, size, *, epsilon=1e6, delta=1e-3, rows=(b"rows",), **more):
    """The account of a data set in a ledger; `rows` are what its fingerprint is made of."""
    budget = Budget(epsilon, delta, ledger, ledger.unit, ledger.neighbouring)
    return Privacy(budget, size, "unused", "privatize", ledger.fingerprint(rows), ledger.data_set_id, **more)


def ledger(name="notes", *, cap=1e6, size=3, **more):
    """A ledger with room."""
    return Ledger.open_or_create(name, cap_epsilon=cap, cap_delta=1e-2, size=size, **more)

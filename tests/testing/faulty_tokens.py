"""Token mechanisms with one planted fault each; test_suites.py demands that TokenMechanismSuite finds it."""

import numpy as np
from privkt_mechanisms.exponential import Exponential
from privkt_mechanisms.laws import IntegerLaw
from privkt_mechanisms.tem import TEM

from privkt.privacy import Certificate, none_event
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)


class ExponentialBase(TokenMechanismSuite):
    name = "exponential"
    draws = 6000
    made = Exponential

    def mechanisms(self):
        return [self.made(TABLE, 3.0)]


class TestSound(ExponentialBase):
    pass


class SensitivityOffByTwo(Exponential):
    """Certified as it should be, then sampled as if a utility moved by half as much."""

    def __init__(self, table, epsilon):
        super().__init__(table, epsilon)
        self.law = self._law(2 * self.sharpness)


class TestSensitivityOffByTwo(ExponentialBase):
    made = SensitivityOffByTwo


class ClampRemoved(TEM):
    """Far words are certified at the radius and weighed beyond it."""

    def __init__(self, table, epsilon):
        super().__init__(table, epsilon, gamma=1.0)
        far = TEM(table, epsilon, gamma=100.0)
        reach = self.levelled.levels, far.levelled.levels
        nearer = reach[1].last / far.gamma * self.gamma
        steep = np.exp(-np.arange(reach[1].last + 1) / nearer * self.sharpness / 2) * 2**30
        self.levelled, self.law = far.levelled, IntegerLaw(far.levelled, np.maximum(steep, 1).astype(np.int64))


class TestClampRemoved(ExponentialBase):
    name = "tem"

    def mechanisms(self):
        return [ClampRemoved(TABLE, 3.0)]

    def distance(self, x, y):
        return self.mechanisms()[0].distance(x, y)


class SignFlipped(Exponential):
    """Farther is likelier: as private as before, and useless."""

    def __init__(self, table, epsilon):
        super().__init__(table, epsilon, calibrate="range")
        self.law = BackwardsLaw(self.law)


class BackwardsLaw:
    def __init__(self, law):
        self.law, self.size = law, law.size

    def rows(self, ids):
        weights = self.law.weights[::-1][self.law.levelled.rows(ids)]
        return weights / weights.sum(axis=1, keepdims=True)

    def draw(self, ids):
        rows = self.rows(ids)
        return np.array([np.random.choice(self.size, p=row) for row in rows], dtype=np.int64)


class TestSignFlipped(ExponentialBase):
    draws = 4000
    made = SignFlipped


class SharedNoise(Exponential):
    """One draw for every occurrence of a token in a call."""

    def sample_ids(self, ids):
        drawn = super().sample_ids(np.arange(self.size))
        self.need_ids(ids)
        return drawn[ids]


class TestSharedNoise(ExponentialBase):
    made = SharedNoise


class IdOffByOne(Exponential):
    def sample_ids(self, ids):
        return (super().sample_ids(ids) + 1) % self.size


class TestIdOffByOne(ExponentialBase):
    made = IdOffByOne


class PassesUnknownThrough(Exponential):
    """Unknown tokens come out as they are."""

    def sample_ids(self, ids):
        known = (ids >= 0) & (ids < self.size)
        drawn = super().sample_ids(np.where(known, ids, 0).astype(np.int64))
        return np.where(known, drawn, ids).astype(np.int64)


class TestPassesUnknownThrough(ExponentialBase):
    made = PassesUnknownThrough


class KeepsSomeWords(Exponential):
    """Half of the tokens come out as they are, and the law does not say so."""

    def sample_ids(self, ids):
        drawn = super().sample_ids(ids)
        return np.where(np.arange(drawn.size).reshape(drawn.shape) % 2, drawn, ids).astype(np.int64)


class TestKeepsSomeWords(ExponentialBase):
    made = KeepsSomeWords


class ForbiddenWords(Exponential):
    """A mask made of the token: some words cannot come, and the certificate is that of the rest."""

    def probabilities(self, ids):
        rows = super().probabilities(ids)
        rows[rows < rows.max(axis=1, keepdims=True) * 0.1] = 0
        return rows / rows.sum(axis=1, keepdims=True)

    def sample_ids(self, ids):
        rows = self.probabilities(np.asarray(ids).ravel())
        self.need_ids(ids)
        drawn = [np.random.choice(self.size, p=row) for row in rows]
        return np.array(drawn, dtype=np.int64).reshape(ids.shape)


class TestForbiddenWords(ExponentialBase):
    draws = 2000
    made = ForbiddenWords


class CheapCertificate(Exponential):
    """The exact epsilon taken for a bounded range, and the range forgotten."""

    @property
    def certificate(self):
        return Certificate(self._certificate.epsilon_exact, bounded_range=True)


class TestCheapCertificate(ExponentialBase):
    made = CheapCertificate

    def mechanisms(self):
        return [self.made(np.eye(6), 1.0)]


class InfiniteButPrivate(Exponential):
    @property
    def certificate(self):
        return Certificate(float("inf"))

    def event(self):
        return none_event()


class TestInfiniteButPrivate(ExponentialBase):
    made = InfiniteButPrivate


BY_LAW = {"test_no_pair_of_neighbours_exceeds_the_guarantee", "test_no_certificate_is_below_the_enumerated_truth"}
BY_COUNTING = {
    "test_draws_follow_the_distribution",
    "test_draws_keep_their_places_and_follow_their_rows",
    "test_equal_tokens_of_one_call_draw_independently",
}
FOUND = {
    "TestSound": set(),
    "TestSensitivityOffByTwo": BY_LAW,
    "TestClampRemoved": BY_LAW,
    "TestSignFlipped": {"test_a_token_is_likeliest_to_stay_itself"},
    "TestSharedNoise": BY_COUNTING,
    "TestIdOffByOne": BY_COUNTING,
    "TestPassesUnknownThrough": {"test_one_unknown_id_refuses_the_whole_call"},
    "TestKeepsSomeWords": BY_COUNTING,
    "TestForbiddenWords": BY_LAW | {"test_every_word_can_become_every_word"},
    "TestCheapCertificate": {"test_no_certificate_is_below_the_enumerated_truth"},
    "TestInfiniteButPrivate": {
        "test_guarantee_event_and_certificate_are_one_promise",
        "test_the_event_costs_what_the_guarantee_says",
    },
}

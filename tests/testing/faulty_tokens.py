"""Token mechanisms with one planted fault each; test_suites.py demands that TokenMechanismSuite finds it."""

import random
from fractions import Fraction

import numpy as np
from privkt_mechanisms.exponential import Exponential
from privkt_mechanisms.laws import IntegerLaw
from privkt_mechanisms.tem import TEM

from privkt.privacy import Certificate, none_event
from privkt.testing import TokenMechanismSuite

TABLE = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)


def chosen(rows):
    secure = random.SystemRandom()
    return np.array([secure.choices(range(len(row)), row)[0] for row in rows.tolist()], dtype=np.int64)


class ExponentialBase(TokenMechanismSuite):
    name = "exponential"
    examples = 20
    shrinks = False
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
        return chosen(self.rows(ids))


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
        return chosen(rows).reshape(ids.shape)


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


class SecondHalfRepeats(Exponential):
    """A call for one token gives every fourth draw again half a call later.

    Not more of them, and in no other call: repeated draws spread counts as well, and a test that adds them up would
    now and then fail with the one that looks at pairs.
    """

    def sample_ids(self, ids):
        drawn = super().sample_ids(ids)
        half, flat = drawn.size // 2, drawn.reshape(-1)
        if half > 1 and len(np.unique(ids)) == 1:
            flat[half : 2 * half : 4] = flat[:half:4]
        return flat.reshape(ids.shape)


class TestSecondHalfRepeats(ExponentialBase):
    made = SecondHalfRepeats


class SortsItsCall(Exponential):
    """Right for one token and for a sorted call."""

    def probabilities(self, ids):
        return super().probabilities(np.sort(ids))


class TestSortsItsCall(ExponentialBase):
    made = SortsItsCall


class Flattens(Exponential):
    def sample_ids(self, ids):
        return super().sample_ids(ids).reshape(-1)


class TestFlattens(ExponentialBase):
    made = Flattens


class ByRange(Exponential):
    """Made quickly: nothing is enumerated."""

    def __init__(self, table, epsilon):
        super().__init__(table, epsilon, calibrate="range")


class FlattersSmallTables(ByRange):
    """Its certificate is right but for tables of few words."""

    @property
    def certificate(self):
        share = 0.4 if self.size < 5 else 1.0  # a range is up to twice what is lost
        return Certificate(self._certificate.epsilon_range * share, None, bounded_range=True)


class OverBase(ExponentialBase):
    """Faults that only a table of somebody else's shows."""

    examples = 5
    shrinks = False
    draws = 1000
    made = ByRange

    def over(self, table, epsilon):
        return self.made(table, epsilon)


class TestSoundOver(OverBase):
    scale_free = True


class TestFlattersSmallTables(OverBase):
    made = FlattersSmallTables


class ByPlace(ByRange):
    """The table moved a little by each word's number."""

    def __init__(self, table, epsilon):
        if np.ndim(table) == 2 and np.size(table) and np.isfinite(table).all():
            table = np.hstack([table, np.abs(table).max(initial=1.0) * np.arange(len(table))[:, None]])
        super().__init__(table, epsilon)


class TestByPlace(OverBase):
    made = ByPlace


class InItsOwnUnits(ByRange):
    """Numbers beyond 1 are cut off, whatever the table's units."""

    def __init__(self, table, epsilon):
        super().__init__(np.where(np.isfinite(table), np.clip(table, -1, 1), table), epsilon)


class TestInItsOwnUnits(OverBase):
    made = InItsOwnUnits
    scale_free = True


class MendsInSilence(ByRange):
    """NaN becomes 0, infinity a huge number, and nobody is told."""

    def __init__(self, table, epsilon):
        super().__init__(np.nan_to_num(table), epsilon)


class TestMendsInSilence(OverBase):
    made = MendsInSilence


class LessForMore(ByRange):
    """From an epsilon of 4 on, more makes the law flatter."""

    def __init__(self, table, epsilon):
        try:
            exact = Fraction(epsilon)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            exact = Fraction(0)
        super().__init__(table, 16 / exact if exact > 4 else epsilon)


class TestLessForMore(OverBase):
    made = LessForMore


class ReadsHalfAnEpsilon(ByRange):
    """ "5/2" is taken for 5, and what is no text at all for 1."""

    def __init__(self, table, epsilon):
        text = epsilon.split("/")[0] if isinstance(epsilon, str) else epsilon
        super().__init__(table, text if text is not None else 1)


class TestReadsHalfAnEpsilon(OverBase):
    made = ReadsHalfAnEpsilon


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
    "TestIdOffByOne": BY_COUNTING | {"test_a_draw_says_nothing_of_the_next"},
    "TestPassesUnknownThrough": {
        "test_one_unknown_id_refuses_the_whole_call",
        "test_ids_of_any_shape_and_type_are_served_and_nothing_else",
    },
    "TestKeepsSomeWords": BY_COUNTING | {"test_a_draw_says_nothing_of_the_next"},
    "TestForbiddenWords": BY_LAW | {"test_every_word_can_become_every_word"},
    "TestCheapCertificate": {"test_no_certificate_is_below_the_enumerated_truth"},
    "TestInfiniteButPrivate": {
        "test_guarantee_event_and_certificate_are_one_promise",
        "test_the_event_costs_what_the_guarantee_says",
        "test_a_document_costs_what_its_tokens_cost",
        "test_releases_add_up",
    },
    "TestSecondHalfRepeats": {"test_equal_tokens_of_one_call_draw_independently"},
    "TestSortsItsCall": {"test_a_row_of_the_law_does_not_depend_on_the_rest_of_the_call"},
    "TestFlattens": {"test_ids_of_any_shape_and_type_are_served_and_nothing_else"},
    "TestSoundOver": set(),
    "TestFlattersSmallTables": {"test_over_any_table_the_certificate_is_not_below_the_truth"},
    "TestByPlace": {"test_words_of_equal_vectors_are_alike"},
    "TestInItsOwnUnits": {"test_the_units_of_the_table_do_not_matter"},
    "TestMendsInSilence": {"test_a_broken_table_is_refused"},
    "TestLessForMore": {"test_more_epsilon_never_certifies_less"},
    "TestReadsHalfAnEpsilon": {"test_an_epsilon_counts_by_its_value_and_no_other_is_taken"},
}

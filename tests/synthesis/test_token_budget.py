"""Budgets by position, by document and by public type: what they promise, by enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tokens import Toy, vocabulary

from privkt.plugins import get_manager
from privkt.privacy import Certificate, RefusedInput, document_cost
from privkt.synthesis.privatiser import TextPrivatiser
from privkt.synthesis.token_budget import ByTokenType, by_position, for_document

VECTORS = vocabulary().vectors
V = len(VECTORS)


def make(epsilon):
    return Toy(VECTORS, epsilon)


def spread(law):
    """The largest log ratio of a column."""
    return float(np.log(law.max(0) / law.min(0)).max())


def test_positions_share_what_is_equal_and_cost_their_sum():
    made = by_position(make, [3.0, 1.0, 3.0, 1.0])
    assert made[0] is made[2]
    assert made[1] is made[3]
    cost = TextPrivatiser(vocabulary(), made, k_max=4).cost().guarantee.epsilon
    assert cost == pytest.approx(2 * made[0].certificate.epsilon + 2 * made[1].certificate.epsilon)
    for bad in ([], [1.0, 0.0], [math.inf]):
        with pytest.raises(RefusedInput, match="every position must have a finite epsilon"):
            by_position(make, bad)


@settings(max_examples=25)
@given(
    epsilon=st.floats(0.5, 60),
    delta=st.sampled_from([0.0, 1e-5, 1e-3]),
    k_max=st.integers(1, 24),
    bounded=st.booleans(),
)
def test_a_document_s_budget_is_never_exceeded(epsilon, delta, k_max, bounded):
    made = for_document(lambda e: Toy(VECTORS, e, bounded=bounded), epsilon, delta, k_max)
    cost = document_cost(made.certificate, k_max, delta=delta).guarantee.epsilon
    assert 0.9 * epsilon < cost <= epsilon


def test_a_budget_that_no_law_keeps_is_refused():
    class Blunt(Toy):
        @property
        def certificate(self):
            return Certificate(50.0, bounded_range=True)

    with pytest.raises(RefusedInput, match="no law of this mechanism was found"):
        for_document(lambda e: Blunt(VECTORS, 1.0), 10.0, 1e-5, 4)
    with pytest.raises(RefusedInput, match="epsilon must be finite"):
        for_document(make, 0.0, 1e-5, 4)


@settings(max_examples=25)
@given(
    epsilons=st.lists(st.floats(0.2, 6), min_size=1, max_size=3),
    bounded=st.booleans(),
    dice=st.integers(0, 2**32 - 1),
)
def test_a_table_of_types_is_certified_as_a_whole(epsilons, bounded, dice):
    types = np.random.default_rng(dice).integers(0, len(epsilons), V)
    made = ByTokenType([Toy(VECTORS, e, bounded=bounded) for e in epsilons], types)
    true = spread(made.probabilities(np.arange(V)))
    assert true <= made.certificate.epsilon * (1 + 1e-9)
    if not bounded:
        assert made.certificate.epsilon == pytest.approx(true) or len(np.unique(types)) == 1
    assert made.guarantee.epsilon == made.certificate.epsilon


def test_two_types_that_each_hide_everything_can_tell_themselves_apart():
    """The planted fault: taking the worst type's own epsilon, here 0, for the whole table."""

    class Fixed(Toy):
        """Answers by one law, whatever is asked."""

        @property
        def certificate(self):
            return Certificate(math.inf, 0.0)

        def probabilities(self, ids):
            law = np.arange(1, V + 1) ** self.epsilon
            return np.tile(law / law.sum(), (len(ids), 1))

    types = np.zeros(V, dtype=np.int64)
    types[3:] = 1
    made = ByTokenType([Fixed(VECTORS, 0.0), Fixed(VECTORS, 3.0)], types)
    assert all(spread(one.probabilities(np.arange(V))) == 0 for one in made.mechanisms)
    assert made.certificate.epsilon == pytest.approx(spread(made.probabilities(np.arange(V))))
    assert made.certificate.epsilon > 5


def test_an_enumerated_table_covers_what_its_laws_are_computed_wrong_by():
    class Coarse(Toy):
        probability_slack = 1e-4

    types = np.arange(V) % 2
    fine = ByTokenType([Toy(VECTORS, 1.0, bounded=False), Toy(VECTORS, 2.0, bounded=False)], types)
    coarse = ByTokenType([Toy(VECTORS, 1.0, bounded=False), Coarse(VECTORS, 2.0, bounded=False)], types)
    true = spread(fine.probabilities(np.arange(V)))
    assert fine.certificate.epsilon - true == pytest.approx(2e-11, rel=1e-3)
    assert coarse.certificate.epsilon - true == pytest.approx(2e-4, rel=1e-6)
    assert coarse.probability_slack == 1e-4


def test_a_table_of_flips_adds_their_own_slack():
    laws = [get_manager().create("mechanism", "permute_and_flip", VECTORS, e) for e in (1.0, 2.0)]
    assert [one.probability_slack for one in laws] == [1e-9, 1e-9]
    made = ByTokenType(laws, np.arange(V) % 2)
    assert made.certificate.epsilon >= spread(made.probabilities(np.arange(V))) + 2e-9 * (1 - 1e-6)


def test_types_draw_from_their_own_law():
    types = np.zeros(V, dtype=np.int64)
    types[0] = 1
    made = ByTokenType([Toy(VECTORS, 1.0), Toy(VECTORS, 2.0)], types)
    drawn = made.sample_ids(np.asarray([[0, 1], [2, 0]]))
    assert drawn.shape == (2, 2)
    assert [one.calls[0].tolist() for one in made.mechanisms] == [[1, 2], [0, 0]]
    assert made.parameters() != ByTokenType(made.mechanisms, 1 - types).parameters()


@pytest.mark.parametrize(
    "types", [np.zeros(V - 1, dtype=np.int64), np.full(V, 2), np.full(V, -1), np.zeros(V)], ids=str
)
def test_maps_that_do_not_fit_are_refused(types):
    with pytest.raises(RefusedInput, match="must give each of 17 rows a type"):
        ByTokenType([make(1.0), make(2.0)], types)


def test_a_type_without_a_promise_makes_the_table_promise_nothing():
    class Hard(Toy):
        def probabilities(self, ids):
            return np.eye(self.size)[ids]

    types = np.arange(V) % 2
    made = ByTokenType([Toy(VECTORS, 1.0, bounded=False), Hard(VECTORS, 1.0, bounded=False)], types)
    assert not made.guarantee.is_private

"""CUSTEXT: TokenMechanismSuite, the partition, and the certificate inside a set."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.testing import TokenMechanismSuite
from privkt.testing.strategies import vector_tables

TABLE = np.random.default_rng(10).normal(size=(11, 3)).astype(np.float32)


def made(*args, name="custext", **kwargs):
    return get_manager().create("mechanism", name, *args, **kwargs)


class TestCusText(TokenMechanismSuite):
    name = "custext"
    by_vectors = False  # two equal words may be of different sets

    def over(self, table, epsilon):
        return made(table, epsilon, name=self.name)

    def mechanisms(self):
        return [made(TABLE, 3.0, neighbours=4), made(TABLE, 1.0, neighbours=3, calibrate="range"), made(TABLE, 2.0)]


class TestCusTextPlus(TokenMechanismSuite):
    name = "custext_plus"
    by_vectors = False

    def over(self, table, epsilon):
        return made(table, epsilon, name=self.name, ordinary=[])

    def mechanisms(self):
        return [made(TABLE, 3.0, name="custext_plus", neighbours=4, ordinary=[2, 3])]


@settings(max_examples=40, deadline=None)
@given(vector_tables(max_words=9), st.floats(0.1, 8), st.integers(2, 4))
def test_sets_are_a_partition_and_the_certificate_holds_inside_each(table, epsilon, neighbours):
    mechanism = made(table, epsilon, neighbours=neighbours)
    members = mechanism.sets[mechanism.sets >= 0]
    assert sorted(members.tolist()) == list(range(len(table)))
    law = mechanism.probabilities(np.arange(len(table)))
    for row in mechanism.sets:
        ids = row[row >= 0]
        assert len(ids) >= min(len(table), neighbours)
        inside = law[np.ix_(ids, ids)]
        assert inside.sum(axis=1) == pytest.approx(np.ones(len(ids)), abs=1e-12)
        assert (inside > 0).all()
        truth = float((np.log(inside).max(axis=0) - np.log(inside).min(axis=0)).max())
        assert truth <= mechanism.inside.epsilon <= epsilon


def test_nothing_holds_between_two_sets():
    mechanism = made(TABLE, 3.0, neighbours=4)
    assert math.isinf(mechanism.certificate.epsilon)
    assert "told in clear" in str(mechanism.guarantee)
    one, other = mechanism.sets[0][0], mechanism.sets[1][0]
    assert mechanism.probabilities(np.array([one]))[0, other] == 0


def test_a_set_is_the_nearest_that_are_left():
    table = np.array([[0.0], [10.0], [1.0], [11.0], [2.0], [12.0]])
    assert sorted(map(sorted, made(table, 1.0, neighbours=3).sets.tolist())) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("neighbours", [1, 0, 2.5, True])
def test_a_set_of_one_is_refused(neighbours):
    with pytest.raises(RefusedInput, match="neighbours must be a whole number >= 2"):
        made(TABLE, 1.0, neighbours=neighbours)


def test_a_table_of_one_word_costs_nothing_however_sharp():
    mechanism = made(np.zeros((1, 1), np.float32), 1.0, neighbours=2)
    assert mechanism.inside.epsilon_exact <= 1e-9
    assert mechanism.probabilities(np.array([0])).tolist() == [[1.0]]

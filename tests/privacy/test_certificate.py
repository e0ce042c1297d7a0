"""Certificates of token draws and the cost of documents, against laws that can be enumerated."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.privacy import Certificate, InvalidGuarantee, Kind, document_cost
from privkt.testing.statistics import renyi

ORDERS = (1.0001, 1.5, 2.0, 8.0, 64.0)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6), st.data())
def test_rho_bounds_the_divergence_of_any_two_laws_with_weights_in_the_range(weights, data):
    """Weights over their sum, each in [w_min, w_max]: bounded range."""
    others = data.draw(st.lists(st.sampled_from(weights), min_size=len(weights), max_size=len(weights)))
    rho = Certificate(2 * math.log(max(weights) / min(weights)), bounded_range=True).rho
    p, q = (dict(enumerate(np.array(w) / sum(w))) for w in (weights, others))
    for order in ORDERS:
        assert renyi(p, q, order) <= rho * order * (1 + 1e-9) + 1e-12


def test_the_bound_of_the_range_is_not_one_for_the_exact_epsilon():
    """k-ary randomised response: epsilon^2 / 8 is exceeded more than three times, epsilon tanh(epsilon / 2) is not."""
    epsilon, k = 1.0, 4
    truth = math.e / (math.e + k - 1)
    p = {i: truth if i == 0 else (1 - truth) / (k - 1) for i in range(k)}
    q = {i: truth if i == 1 else (1 - truth) / (k - 1) for i in range(k)}
    needed = renyi(p, q, 1.0001)
    assert needed > 1.5 * epsilon**2 / 8
    assert needed <= Certificate(math.inf, epsilon).rho
    assert Certificate(math.inf, epsilon, bounded_range=True).rho == Certificate(math.inf, epsilon).rho


def test_the_two_certificates_are_never_mixed():
    both = Certificate(4.0, 2.0, bounded_range=True)
    assert both.epsilon == 2.0
    assert both.rho == pytest.approx(min(4.0**2 / 8, 2 * math.tanh(1)))
    assert both.rho > 2.0**2 / 8


def test_a_document_costs_the_sum_or_less_with_a_delta():
    one = Certificate(1.0, bounded_range=True)
    pure = document_cost(one, 64)
    assert pure.guarantee.kind is Kind.PURE
    assert pure.guarantee.epsilon == 64
    assert document_cost(Certificate(0.1), 3).guarantee.epsilon >= 3 * Fraction(0.1)
    loose = document_cost(one, 64, delta=1e-5)
    assert loose.guarantee.kind is Kind.ZCDP
    assert loose.guarantee.rho == pytest.approx(8)
    rho, log = 8.0, math.log(1e5)
    assert loose.guarantee.epsilon <= rho + 2 * math.sqrt(rho * log)
    assert loose.guarantee.epsilon > 0.5 * rho


def test_a_few_large_draws_cost_their_sum_and_many_small_ones_without_a_range_compose():
    few = document_cost(Certificate(12.0, bounded_range=True), 2, delta=1e-5).guarantee
    assert few.rho is None
    assert 23.9 < few.epsilon <= 24.001
    composed = document_cost(Certificate(math.inf, 0.1), 400, delta=1e-5)
    assert composed.guarantee.kind is not Kind.PURE
    assert composed.guarantee.epsilon < 40 / 2


def test_positions_may_have_budgets_of_their_own():
    each = [Certificate(1.0), Certificate(2.0), Certificate(3.0)]
    assert document_cost(each, 3).guarantee.epsilon == pytest.approx(6)
    with pytest.raises(InvalidGuarantee, match="one certificate a position"):
        document_cost(each, 4)


def test_one_position_without_a_bound_makes_the_whole_none():
    cost = document_cost([Certificate(1.0), Certificate(math.inf)], 2, delta=1e-5, proof="docs/proofs/tokens.md")
    assert cost.guarantee.kind is Kind.NONE
    assert str(cost.guarantee).endswith(": a token's law has no finite epsilon")  # no proof proves that


@pytest.mark.parametrize("values", [(-1.0,), (math.nan,), (1.0, -2.0), (1.0, 1.0, False, -1.0)])
def test_numbers_that_cannot_be_are_refused(values):
    with pytest.raises(InvalidGuarantee, match="must be >= 0"):
        Certificate(*values)


def test_a_delta_is_spent_only_where_it_saves_something():
    assert document_cost(Certificate(4.0), 16, delta=1e-5).guarantee.kind is Kind.PURE
    assert document_cost(Certificate(0.1), 400, delta=1e-5).guarantee.delta == 1e-5

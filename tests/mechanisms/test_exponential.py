"""The exponential mechanism over words: TokenMechanismSuite, exact small cases, and properties of its certificates."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privkt_mechanisms.byte_table import LevelledTable, Levels, byte_table
from privkt_mechanisms.laws import IntegerLaw, selected

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.testing import TokenMechanismSuite
from privkt.testing.strategies import broken_tables, token_epsilons, vector_tables

TABLE = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
TWINS = np.vstack([TABLE, TABLE[2], np.zeros((1, 5), np.float32)])


def made(*args, **kwargs):
    return get_manager().create("mechanism", "exponential", *args, **kwargs)


class TestExponential(TokenMechanismSuite):
    name = "exponential"
    scale_free = True

    def over(self, table, epsilon):
        return made(table, epsilon)

    def exact_law(self, mechanism):
        return exact_law(mechanism)

    def mechanisms(self):
        return [
            made(TABLE, 3.0),
            made(TWINS, "1/2", calibrate="range"),
            made(TABLE, 8, utility="cosine"),
            made(np.ones((3, 2)), 1.0),
            made(TWINS, 4.0, timing="fixed"),
        ]


def exact_law(mechanism):
    """Fractions of the law, in Python's integers from the bytes on."""
    rows, levels, weights = mechanism.table.rows.tolist(), mechanism.levelled.levels, mechanism.law.weights.tolist()
    law = []
    for x in rows:
        own = []
        for y in rows:
            square = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
            shifted = square << -levels.shift if levels.shift < 0 else square >> levels.shift
            own.append(weights[min(math.isqrt(shifted) if levels.root else shifted, levels.last)])
        law.append([Fraction(w, sum(own)) for w in own])
    return law


def true_epsilon(law):
    columns = list(zip(*law, strict=True))
    worst = max(max(column) / min(column) for column in columns)
    return math.log(worst.numerator) - math.log(worst.denominator)


@settings(max_examples=60, deadline=None)
@given(vector_tables(), token_epsilons(), st.sampled_from(["exact", "range"]), st.sampled_from(["distance", "cosine"]))
def test_the_certificate_bounds_the_rational_truth_and_stays_within_epsilon(table, epsilon, calibrate, utility):
    mechanism = made(table, epsilon, calibrate=calibrate, utility=utility)
    law = exact_law(mechanism)
    truth = true_epsilon(law)
    certificate = mechanism.certificate
    assert truth <= certificate.epsilon <= epsilon
    assert truth <= certificate.epsilon_range
    if calibrate == "exact":
        assert certificate.epsilon_exact <= truth + 1e-5
    else:
        assert certificate.epsilon_exact is None
    found = mechanism.probabilities(np.arange(mechanism.size))
    assert np.abs(found - np.array(law, dtype=float)).max() <= 1e-15


@settings(max_examples=30, deadline=None)
@given(broken_tables())
def test_a_table_that_is_not_finite_or_has_no_words_is_refused(table):
    with pytest.raises(RefusedInput, match="exponential: the table must be"):
        made(table, 1.0)


def test_every_integer_below_the_total_gives_its_word():
    table = byte_table("test", np.array([[0.0], [1.0], [3.0]]))
    levels = Levels(2, shift=10)  # distances 0, 42, 85, 127 steps: levels 0, 1, 2, 2
    law = IntegerLaw(LevelledTable(table, levels), np.array([7, 3, 2]))
    rows = [[7, 3, 2], [3, 7, 2], [2, 2, 7]]
    for x, weights in enumerate(rows):
        total = sum(weights)
        assert law.weight_rows(np.array([x])).tolist() == [weights]
        words = selected(law.weight_rows(np.full(total, x)), np.arange(total))
        assert np.bincount(words, minlength=3).tolist() == weights
        assert (np.diff(words) >= 0).all()


def test_calibration_to_the_exact_certificate_is_sharper_for_the_same_promise():
    table = np.random.default_rng(0).normal(size=(60, 16))
    exact, plain = made(table, 6.0), made(table, 6.0, calibrate="range")
    assert 5.97 < exact.certificate.epsilon <= 6.0
    assert exact.sharpness > 1.3 * plain.sharpness
    own = [np.diag(m.probabilities(np.arange(60))).mean() for m in (exact, plain)]
    assert own[0] > 2 * own[1]


def test_a_head_and_its_tail_have_their_exact_shares():
    """One head and 2^12 far words at a weight that expects 30 of them: none at all would be a tail that is lost."""
    table = np.vstack([np.zeros((1, 1)), np.ones((2**12, 1))])
    mechanism = made(table, 2 * math.log(2**12 * 2**12 / 30), calibrate="range")
    far = (mechanism.sample_ids(np.zeros(2**12, dtype=np.int64)) != 0).sum()
    expected = 2**12 * float(1 - mechanism.probabilities(np.array([0]))[0, 0])
    assert expected == pytest.approx(30, rel=0.01)
    assert 5 <= far <= 65  # Poisson(30): outside with probability below 1e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epsilon": 0}, "epsilon must be a finite number > 0"),
        ({"epsilon": 1, "calibrate": "hope"}, "calibrate must be one of exact, range, got 'hope'"),
        ({"epsilon": 1, "timing": "slow"}, "timing must be fast or fixed, got 'slow'"),
        ({"epsilon": 1, "utility": "euclid"}, "utility must be distance or cosine, got 'euclid'"),
        ({"epsilon": 200, "calibrate": "range"}, "smallest weight 10 bits"),
    ],
)
def test_bad_parameters_are_refused(arguments, words):
    with pytest.raises(RefusedInput, match=words):
        made(TABLE, **arguments)


def test_equal_tables_are_one_whatever_the_epsilon():
    first, second = made(TABLE, 1.0), made(TABLE.copy(), 2.0)
    assert first.table is second.table
    assert made(TABLE, 1.0, utility="cosine").table is not first.table


def test_calibration_gives_up_where_the_bits_end():
    """Two far words: the exact certificate is the range's half at best, and no weight may fall below 10 bits."""
    mechanism = made(np.array([[0.0], [1.0]]), 60.0)
    assert mechanism.certificate.epsilon <= 60.0
    assert mechanism.certificate.epsilon_exact is not None

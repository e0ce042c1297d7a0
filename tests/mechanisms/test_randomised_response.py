"""Randomised response: MechanismSuite, exact small cases, and properties of its weights."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.plugins import get_manager
from privkt.privacy import RefusedInput, epsilon
from privkt.testing import MechanismSuite


def made(*args, **kwargs):
    return get_manager().create("mechanism", "randomised_response", *args, **kwargs)


class TestRandomisedResponse(MechanismSuite):
    name = "randomised_response"

    def mechanisms(self):
        return [made(("no", "yes"), 1.0), made(("a", "b", "c", "d", "e"), "1/3"), made(("x", "y", "z"), 6)]

    def inputs(self, mechanism):
        return [mechanism.labels[0], mechanism.labels[-1]]

    def outsiders(self, mechanism):
        return [self.canary, "", 0, None, [self.canary]]


def test_every_integer_below_the_total_gives_its_label():
    one, truth = 2**64, made(("a", "b", "c"), 1).truth_weight
    ends = (
        (0, "b"),
        (truth - 1, "b"),
        (truth, "a"),
        (truth + one - 1, "a"),
        (truth + one, "c"),
        (truth + 2 * one - 1, "c"),
    )
    for point, label in ends:
        assert made(("a", "b", "c"), 1, below=lambda n, point=point: point).sample("b") == label


def test_the_total_is_what_is_asked_of_the_generator():
    asked = []
    mechanism = made(("a", "b", "c"), 1, below=lambda n: asked.append(n) or 0)
    mechanism.sample("a")
    assert asked == [mechanism.truth_weight + 2 * 2**64]


@given(st.fractions(min_value=Fraction(1, 10**12), max_value=500))
def test_the_weight_never_exceeds_its_bound_and_loses_almost_nothing(rate):
    weight = Fraction(made(("a", "b"), rate).truth_weight, 2**64)
    with localcontext(prec=400):
        bound = (Decimal(rate.numerator) / Decimal(rate.denominator)).exp()
        ratio = Decimal(weight.numerator) / Decimal(weight.denominator)
        assert 1 <= ratio <= bound
        assert bound / ratio - 1 < Decimal(2) ** -63


@given(st.floats(min_value=1e-6, max_value=500))
def test_the_stated_epsilon_is_not_below_the_asked_one(rate):
    mechanism = made(("a", "b"), rate)
    assert mechanism.guarantee.epsilon == rate
    assert epsilon(mechanism.event(), 0.0) >= rate * (1 - 1e-12)


def test_a_fraction_that_is_no_float_is_rounded_up():
    assert Fraction(made(("a", "b"), "1/3").guarantee.epsilon) > Fraction(1, 3)
    assert made(("a", "b"), "1/3").parameters()["epsilon"] == "1/3"


def test_a_column_costs_each_record_one_draw():
    mechanism = made(("no", "yes"), 2)
    release = mechanism.release_column(("no", "yes", "no"), data_set_id="d", charge="c")
    assert len(release.payload) == 3
    assert release.guarantee == mechanism.guarantee
    assert release.event == mechanism.event()
    assert release.charge == "c"


def test_equal_records_draw_independently():
    drawn = made(("no", "yes"), "1/100").release_column(("no",) * 200, data_set_id="d").payload
    assert set(drawn) == {"no", "yes"}  # all equal has probability below 2^-195


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "x", None, True, 501, "1/0"])
def test_a_bad_epsilon_is_refused(bad):
    with pytest.raises(
        RefusedInput, match=r"^randomised_response: epsilon must be a finite number > 0 and at most 500"
    ):
        made(("a", "b"), bad)


@pytest.mark.parametrize("labels", [(), ("a",), ("a", "a"), "ab"])
def test_bad_labels_are_refused(labels):
    with pytest.raises(RefusedInput, match="at least two different names"):
        made(labels, 1)

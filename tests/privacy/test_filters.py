import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.privacy import (
    BudgetExceeded,
    Guarantee,
    Kind,
    Ledger,
    Neighbouring,
    epsilon,
    gaussian_event,
    poisson_gaussian_event,
    zcdp_event,
)
from privkt.privacy.filters import Cost, Filter, add_up, left_of
from privkt.privacy.ledger import Cap, Left, Places, Spent

amounts = st.floats(min_value=0, max_value=1e6)


@given(st.lists(amounts, max_size=20))
def test_sums_are_rounded_up_and_hardly(values):
    exact = sum((Fraction(repr(value)) for value in values), Fraction(0))
    total = Fraction(repr(add_up(values)))
    assert exact <= total <= exact * (1 + Fraction(1, 10**14)) + Fraction(1, 10**300)


@given(amounts, amounts)
def test_what_is_left_is_rounded_down(cap, spent):
    left = Fraction(repr(left_of(cap, spent)))
    assert left >= 0
    assert left <= max(Fraction(0), Fraction(repr(cap)) - Fraction(repr(spent)))


def test_tenths_add_up_to_one():
    assert add_up([0.1] * 10) == 1.0
    assert Filter("basic", 0.3, 1e-5, Neighbouring.ZERO_OUT).holds((add_up([0.1] * 3), 0.0))


def ledger_of(state, rule):
    return Ledger.open_or_create("grid", cap_epsilon=4.0, cap_delta=1e-5, size=1000, filter=rule, state=state)


def fill(ledger, event, guarantee):
    """How many equal charges fit."""
    for number in range(2000):
        try:
            ledger.charge(event, guarantee, run_id=str(number), purpose="p", fingerprint="f", declared={})
        except BudgetExceeded:
            return number
    raise AssertionError("no cap was met")


def test_zcdp_fits_more_small_runs_than_sums_and_stays_sound(tmp_path):
    event = gaussian_event(12.0)
    guarantee = Guarantee(Kind.APPROXIMATE, epsilon(event, 1e-7), 1e-7)
    counts = {rule: fill(ledger_of(tmp_path / rule, rule), event, guarantee) for rule in ("basic", "zcdp")}
    assert counts["basic"] == math.floor(4.0 / guarantee.epsilon)
    assert counts["zcdp"] > 4 * counts["basic"]
    # What was let through is, composed, really within the cap: the exact Gaussian says so.
    assert epsilon(gaussian_event(12.0, counts["zcdp"]), 1e-5) <= 4.0
    assert epsilon(gaussian_event(12.0, counts["zcdp"] * 2), 1e-5) > 4.0


def test_one_renyi_order_credits_sampling(tmp_path):
    event = poisson_gaussian_event(2.0, 0.05, 20)
    guarantee = Guarantee(Kind.APPROXIMATE, epsilon(event, 1e-7), 1e-7)
    ledger = ledger_of(tmp_path, "rdp")
    fitted = fill(ledger, event, guarantee)
    assert fitted > 1.5 * math.floor(4.0 / guarantee.epsilon)
    assert epsilon(poisson_gaussian_event(2.0, 0.05, 20 * fitted), 1e-5) <= 4.0
    assert ledger.spent().epsilon <= 4.0
    assert ledger.spent().delta == 1e-5


def test_zcdp_guarantees_enter_by_their_rho(tmp_path):
    ledger = ledger_of(tmp_path, "zcdp")
    rho = 0.02
    guarantee = Guarantee(Kind.ZCDP, epsilon(zcdp_event(rho), 1e-5), 1e-5, rho=rho)
    ledger.charge(zcdp_event(rho), guarantee, run_id="1", purpose="p", fingerprint="f", declared={})
    assert ledger.spent().epsilon == pytest.approx(guarantee.epsilon, rel=1e-2)


def test_slack_beyond_its_hundredth_closes_the_account():
    rule = Filter("zcdp", 4.0, 1e-5, Neighbouring.ZERO_OUT)
    small = Cost(1.0, 1e-6, divergence=0.01, slack_delta=6e-8)
    assert rule.holds(rule.total([small]))
    assert math.isinf(rule.total([small, small])[0])


def test_replace_one_ledgers_count_the_doubled_sensitivity():
    one = Filter("zcdp", 4.0, 1e-5, Neighbouring.REPLACE_ONE).divergence(gaussian_event(2.0))
    assert one == pytest.approx(4 * Filter("zcdp", 4.0, 1e-5, Neighbouring.ZERO_OUT).divergence(gaussian_event(2.0)))


@given(
    cap=st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.9g}")),
    share=st.floats(0, 1),
)
def test_what_is_printed_as_spent_and_left_adds_up_to_the_cap(cap, share):
    spent = min(cap, share * cap)
    places = Places.of(Cap(cap, 0.0), spent)
    left = left_of(cap, spent)
    (most, _), (used, _) = Cap(cap, 0.0).said(places), Spent(spent, 0.0, False, "basic", places).said
    (rest, _) = Left(left, 0.0, places).said
    assert Fraction(most) == Fraction(repr(cap))
    assert Fraction(used) >= Fraction(repr(spent))
    assert Fraction(rest) <= Fraction(repr(left))
    assert abs(Fraction(used) + Fraction(rest) - Fraction(most)) <= Fraction(10) ** places.epsilon


def test_what_is_left_but_for_rounding_is_nothing():
    places = Places.of(Cap(192.0, 1e-5), 2 * 95.9999994, 1e-5)
    assert str(Left(192 - 2 * 95.9999994, 0.0, places)) == "epsilon 0, delta 0"
    assert Spent(2 * 95.9999994, 1e-5, False, "basic", places).said == ("192", "1e-5")
    assert Cap(192.0, 1e-5).said(places) == ("192", "1e-5")

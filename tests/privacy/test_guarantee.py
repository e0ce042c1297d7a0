import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.privacy import Guarantee, InvalidGuarantee, Kind, Neighbouring, Unit, default_delta
from privkt.privacy.guarantee import rounded_down, rounded_up, weakness

finite = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@st.composite
def guarantees(draw):
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.NONE:
        return Guarantee.none(draw(st.text(max_size=20)))
    exact = kind in (Kind.PURE, Kind.METRIC)
    return Guarantee(
        kind,
        draw(finite),
        0.0 if exact else draw(st.floats(min_value=0, max_value=0.99)),
        rho=draw(finite) if kind is Kind.ZCDP else None,
        unit=draw(st.sampled_from(Unit)),
        neighbouring=draw(st.sampled_from(Neighbouring)),
        conditional_on=tuple(draw(st.lists(st.text(max_size=10), max_size=2))),
        proof=draw(st.text(max_size=20)),
        metric="L2" if kind is Kind.METRIC else None,
        metric_scale=0.5 if kind is Kind.METRIC else None,
        replace_one_epsilon=draw(st.none() | finite),
    )


@given(guarantees())
def test_json_round_trip_is_the_same_guarantee(guarantee):
    assert Guarantee.from_json(json.loads(json.dumps(guarantee.to_json(), allow_nan=False))) == guarantee


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_printed_number_is_never_smaller(value):
    printed = Decimal(rounded_up(value))
    assert float(printed) >= value
    assert printed <= Decimal(value) * Decimal("1.001")


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_what_is_left_is_never_printed_larger(value):
    assert float(rounded_down(value)) <= value
    assert rounded_down(0.0) == rounded_up(0.0) == "0"


@given(guarantees())
def test_every_print_says_unit_and_relation(guarantee):
    text = str(guarantee)
    assert f"{guarantee.unit} level" in text
    assert str(guarantee.neighbouring) in text
    assert all(condition in text for condition in guarantee.conditional_on if guarantee.is_private)


def test_the_printed_form():
    guarantee = Guarantee(Kind.APPROXIMATE, 2.80941, 1e-5, conditional_on=("length",), replace_one_epsilon=5.6380001)
    assert str(guarantee) == (
        "epsilon = 2.81, delta = 1e-5, record level, zero-out (replace-one: epsilon = 5.639); conditional on length"
    )
    metric = Guarantee(Kind.METRIC, 4.0, metric="L2", metric_scale=2.0, neighbouring=Neighbouring.LOCAL)
    assert str(metric) == "epsilon = 4 per 2 of L2 distance, delta = 0, record level, local"


def test_none_is_an_infinite_spend_and_says_why():
    guarantee = Guarantee.none("seeded run")
    assert math.isinf(guarantee.epsilon)
    assert not guarantee.is_private
    assert str(guarantee) == "no privacy guarantee (epsilon = inf), record level, zero-out: seeded run"


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"kind": "pure", "epsilon": -1.0}, "epsilon must be >= 0"),
        ({"kind": "pure", "epsilon": math.nan}, "epsilon must be >= 0"),
        ({"kind": "pure", "epsilon": math.inf}, "must have a finite epsilon"),
        ({"kind": "pure", "epsilon": 1.0, "delta": 1e-6}, "kind pure must have delta = 0"),
        ({"kind": "approximate", "epsilon": 1.0, "delta": 1.0}, "delta below 1"),
        ({"kind": "approximate", "epsilon": 1.0, "delta": math.nan}, "delta must lie in"),
        ({"kind": "zcdp", "epsilon": 1.0, "delta": 1e-6}, "kind zcdp must state rho"),
        ({"kind": "metric", "epsilon": 1.0}, "kind metric must name its metric"),
        ({"kind": "metric", "epsilon": 1.0, "metric": "L2", "metric_scale": 0.0}, "scale > 0"),
        ({"kind": "none", "epsilon": 1.0}, "kind none must have epsilon = inf"),
        ({"kind": "secret", "epsilon": 1.0}, "kind must be one of pure, approximate, zcdp, metric, none"),
        ({"kind": "pure", "epsilon": 1.0, "unit": "person"}, "unit must be one of token"),
    ],
)
def test_contradictions_are_refused_with_the_rule(arguments, rule):
    with pytest.raises(InvalidGuarantee, match=rule):
        Guarantee(**arguments)


def test_plain_text_and_numpy_numbers_are_taken_as_what_they_mean():
    guarantee = Guarantee("pure", np.float64(1.5), unit="user", neighbouring="add-remove")
    assert guarantee == Guarantee(Kind.PURE, 1.5, unit=Unit.USER, neighbouring=Neighbouring.ADD_REMOVE)
    assert type(guarantee.epsilon) is float


def test_foreign_json_is_refused():
    with pytest.raises(InvalidGuarantee, match="known fields"):
        Guarantee.from_json({**Guarantee.none("x").to_json(), "colour": "red"})


@pytest.mark.parametrize(("n", "delta"), [(1, 1e-5), (1000, 1e-5), (10_000, 1e-5), (100_000, 1e-6)])
def test_default_delta(n, delta):
    assert default_delta(n) == pytest.approx(delta)
    assert default_delta(n) < 1 / n


def test_default_delta_of_nobody_is_refused():
    with pytest.raises(InvalidGuarantee, match="positive number of units"):
        default_delta(0)


def test_a_decimal_number_is_printed_as_it_was_written():
    """Its binary value may lie above it, which rounding up must not turn into another last digit."""
    for exponent in range(1, 12):
        for digits in (1, 3, 7, 101, 999):
            value = float(f"{digits}e-{exponent}")
            assert Decimal(rounded_up(value, 3)) == Decimal(f"{digits}e-{exponent}")
    assert "delta = 0.001, " in str(Guarantee(Kind.APPROXIMATE, 1.0, 1e-3))


def test_a_large_epsilon_is_called_weak():
    assert weakness(20.0, "row") is None
    assert weakness(math.inf, "row") is None
    assert weakness(116.91, "row") == (
        "epsilon = 117 for a whole row protects against little: e^117 bounds how much more likely one row may make "
        "what crosses than another"
    )

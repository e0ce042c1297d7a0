import json
import math

import dp_accounting as dpa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.privacy import (
    InvalidEvent,
    balls_in_bins_event,
    compose,
    event_from_json,
    event_to_json,
    gaussian_event,
    none_event,
    poisson_gaussian_event,
    pure_event,
    truncated_poisson_gaussian_event,
    zcdp_event,
)
from privkt.privacy.events import leaves, pure_epsilon_of

noise = st.floats(min_value=0.01, max_value=100)
counts = st.integers(min_value=1, max_value=50)
elementary = st.one_of(
    st.builds(gaussian_event, noise, counts),
    st.builds(poisson_gaussian_event, noise, st.floats(min_value=1e-4, max_value=1), counts),
    st.builds(
        truncated_poisson_gaussian_event,
        noise,
        st.floats(min_value=1e-4, max_value=1),
        counts,
        size=st.integers(20, 40),
        cap=st.integers(1, 50),
    ),
    st.builds(balls_in_bins_event, noise, counts, counts),
    st.builds(pure_event, st.floats(min_value=0, max_value=20), counts),
    st.builds(zcdp_event, st.floats(min_value=0, max_value=10)),
    st.builds(none_event),
)
events = st.recursive(elementary, lambda inner: st.lists(inner, max_size=3).map(compose), max_leaves=6)


@given(events)
def test_json_round_trip_is_the_same_event(event):
    assert event_from_json(json.loads(json.dumps(event_to_json(event), allow_nan=False))) == event


@given(st.floats(min_value=1e-9, max_value=400))
def test_a_pure_event_is_randomized_response_of_at_least_its_epsilon(epsilon):
    (leaf,) = leaves(pure_event(epsilon))
    likely, unlikely = 1 - leaf.noise_parameter / 2, leaf.noise_parameter / 2
    assert math.log(likely / unlikely) == pytest.approx(epsilon, rel=1e-6)
    assert math.log(2 - leaf.noise_parameter) - math.log(leaf.noise_parameter) >= epsilon
    assert pure_epsilon_of(leaf.noise_parameter) == pytest.approx(epsilon, rel=1e-9, abs=1e-15)


@given(st.integers(min_value=1, max_value=4000))
def test_a_decimal_epsilon_comes_back_as_it_was_written(thousandths):
    (leaf,) = leaves(pure_event(thousandths / 1000))
    assert pure_epsilon_of(leaf.noise_parameter) == thousandths / 1000


def test_pure_counts_are_lists_because_the_library_ignores_their_count():
    event = pure_event(1.0, 30)
    assert isinstance(event, dpa.ComposedDpEvent)
    assert len(event.events) == 30
    assert len(event_to_json(event)["events"]) == 1


def test_leaves_multiply_counts_through_every_layer():
    step = poisson_gaussian_event(2.0, 0.1, 7)
    whole = dpa.SelfComposedDpEvent(compose([step, pure_event(0.5, 3)]), 4)
    assert sorted(leaves(whole).values()) == [12, 28]


def test_sampling_everybody_is_no_sampling():
    assert leaves(poisson_gaussian_event(2.0, 1.0, 7)) == leaves(gaussian_event(2.0, 7))


@pytest.mark.parametrize(
    "foreign",
    [
        dpa.LaplaceDpEvent(1.0),
        dpa.RandomizedResponseDpEvent(0.5, 3),
        dpa.SampledWithoutReplacementDpEvent(100, 10, dpa.GaussianDpEvent(1.0)),
        dpa.PoissonSampledDpEvent(0.1, dpa.LaplaceDpEvent(1.0)),
        dpa.ZCDpEvent(0.1, 0.2),
        dpa.UnsupportedDpEvent(),
    ],
)
def test_events_from_elsewhere_are_refused(foreign):
    for use in (leaves, event_to_json, lambda event: compose([event])):
        with pytest.raises(InvalidEvent, match=r"only events made by privkt.privacy's factory"):
            use(foreign)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: gaussian_event(0.0), "noise_multiplier must be finite and > 0, got 0.0"),
        (lambda: gaussian_event(math.nan), "noise_multiplier must be finite and > 0, got nan"),
        (lambda: gaussian_event(1.0, 0), "count must be a whole number >= 1, got 0"),
        (lambda: poisson_gaussian_event(1.0, 0.0, 1), r"sampling_rate must lie in \(0, 1\], got 0.0"),
        (lambda: poisson_gaussian_event(1.0, 1.5, 1), r"sampling_rate must lie in \(0, 1\], got 1.5"),
        (lambda: poisson_gaussian_event(1.0, 0.1, 2.5), "steps must be a whole number >= 1, got 2.5"),
        (
            lambda: truncated_poisson_gaussian_event(1.0, 0.1, 1, size=10, cap=0),
            "cap must be a whole number >= 1, got 0",
        ),
        (
            lambda: truncated_poisson_gaussian_event(1.0, 0.1, 1, size=2.5, cap=1),
            "size must be a whole number >= 1, got 2.5",
        ),
        (lambda: balls_in_bins_event(-1.0, 3), "noise_multiplier must be finite and > 0, got -1.0"),
        (lambda: balls_in_bins_event(1.0, 0), "bins must be a whole number >= 1, got 0"),
        (lambda: balls_in_bins_event(1.0, 3, 0), "epochs must be a whole number >= 1, got 0"),
        (lambda: pure_event(-1.0), r"epsilon must lie in \[0, 500\], got -1.0"),
        (lambda: zcdp_event(math.inf), "rho must be finite and >= 0, got inf"),
        (lambda: event_from_json({"class": "LaplaceDpEvent", "noise_multiplier": 1.0}), "class must be one"),
        (lambda: event_from_json({"class": "GaussianDpEvent", "sigma": 1.0}), "fields must be those"),
    ],
)
def test_impossible_parameters_are_refused_by_name(make, rule):
    with pytest.raises(InvalidEvent, match=rule):
        make()

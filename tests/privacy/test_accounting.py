import itertools
import math

import dp_accounting as dpa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from privkt.privacy import (
    InvalidEvent,
    Neighbouring,
    compose,
    delta_at,
    epsilon,
    gaussian_event,
    noise_per_coordinate,
    none_event,
    poisson_gaussian_event,
    pure_event,
    replace_one_epsilon,
    zcdp_event,
)
from privkt.privacy.accounting import coarse_epsilon, rdp, rdp_epsilon, zcdp_rho

REPLACE = dpa.NeighboringRelation.REPLACE_ONE
ZERO = Neighbouring.ZERO_OUT


def library_epsilon(event, delta, relation=dpa.NeighboringRelation.ADD_OR_REMOVE_ONE):
    """What dp-accounting alone says."""
    return dpa.pld.PLDAccountant(relation).compose(event).get_epsilon(delta)


def gaussian_delta(noise, eps):
    """Closed form of the Gaussian mechanism (Balle and Wang 2018, Theorem 8)."""
    upper = stats.norm.cdf(0.5 / noise - eps * noise)
    return upper - math.exp(eps) * stats.norm.cdf(-0.5 / noise - eps * noise)


def pure_delta(eps, count, at):
    """Exact hockey stick of `count` binary randomized responses, enumerated by the number of likely answers."""
    likely = 1 / (1 + math.exp(-eps))
    total = 0.0
    for k in range(count + 1):
        here = stats.binom.pmf(k, count, likely)
        there = stats.binom.pmf(k, count, 1 - likely)
        total += max(0.0, here - math.exp(at) * there)
    return total


@pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (2.0, 4), (10.0, 25), (0.5, 1)])
def test_gaussian_against_its_closed_form(noise, count):
    event = gaussian_event(noise, count)
    for delta in (1e-3, 1e-6, 1e-9):
        found = epsilon(event, delta)
        exact = gaussian_delta(noise / math.sqrt(count), found)
        assert delta * 0.99 <= exact <= delta
        assert delta_at(event, found) == pytest.approx(delta, rel=1e-2)


@pytest.mark.parametrize(("eps", "count"), [(1.0, 1), (1.0, 30), (0.1, 7), (0.013, 200), (3.0, 2)])
def test_pure_against_enumeration(eps, count):
    event = pure_event(eps, count)
    assert epsilon(event, 0.0) == pytest.approx(eps * count, rel=1e-9)
    for delta in (1e-2, 1e-6):
        found = epsilon(event, delta)
        assert pure_delta(eps, count, found) <= delta * (1 + 1e-6)
        assert found <= eps * count
        assert pure_delta(eps, count, found * 0.999) >= delta * 0.9 or found == pytest.approx(eps * count, rel=1e-3)


def test_trap_the_library_ignores_the_count_of_randomized_response():
    (one,) = set(pure_event(1.0, 30).events)
    assert library_epsilon(dpa.SelfComposedDpEvent(one, 30), 1e-6, REPLACE) == pytest.approx(1.0, rel=1e-3)
    assert library_epsilon(pure_event(1.0, 30), 1e-6, REPLACE) > 29
    assert epsilon(dpa.SelfComposedDpEvent(one, 30), 1e-6) == epsilon(pure_event(1.0, 30), 1e-6)
    assert epsilon(pure_event(1.0, 30), 1e-6) == pytest.approx(
        library_epsilon(pure_event(1.0, 30), 1e-6, REPLACE), rel=1e-3
    )


def test_trap_the_library_under_reports_randomized_response_under_replace_special():
    event = pure_event(1.0)
    special = dpa.pld.PLDAccountant(dpa.NeighboringRelation.REPLACE_SPECIAL).compose(event).get_epsilon(1e-9)
    assert special < 0.7
    assert all(epsilon(event, 1e-9, relation) == pytest.approx(1.0) for relation in Neighbouring)


def test_trap_a_laplace_event_does_not_dominate_a_pure_mechanism():
    laplace = dpa.pld.PLDAccountant().compose(dpa.LaplaceDpEvent(1.0))
    assert laplace.get_delta(0.5) < pure_delta(1.0, 1, 0.5)
    assert delta_at(pure_event(1.0), 0.5) >= pure_delta(1.0, 1, 0.5)


def test_trap_the_library_does_not_double_a_gaussian_for_renyi_under_replace_one():
    event = gaussian_event(2.0)
    both = [
        dpa.rdp.RdpAccountant(neighboring_relation=relation).compose(event).get_epsilon(1e-5)
        for relation in (dpa.NeighboringRelation.ADD_OR_REMOVE_ONE, REPLACE)
    ]
    assert both[0] == both[1]
    assert rdp_epsilon(event, 1e-5, Neighbouring.REPLACE_ONE) == pytest.approx(rdp_epsilon(gaussian_event(1.0), 1e-5))
    assert replace_one_epsilon(event, 1e-5) == pytest.approx(epsilon(gaussian_event(1.0), 1e-5), rel=1e-3)


SETTINGS = [(0.256, 16, 1.5), (0.01, 1000, 0.8), (0.128, 48, 2.0), (1.0, 5, 6.0)]


@pytest.mark.parametrize(("rate", "steps", "noise"), SETTINGS)
def test_a_count_is_a_list(rate, steps, noise):
    counted = poisson_gaussian_event(noise, rate, steps)
    listed = compose([poisson_gaussian_event(noise, rate, 1)] * steps)
    assert epsilon(counted, 1e-5) == epsilon(listed, 1e-5)


@pytest.mark.parametrize(("rate", "steps", "noise"), SETTINGS)
def test_the_library_alone_finds_the_same_epsilon(rate, steps, noise):
    event = poisson_gaussian_event(noise, rate, steps)
    assert epsilon(event, 1e-5) == pytest.approx(library_epsilon(event, 1e-5), rel=1e-3)
    assert replace_one_epsilon(event, 1e-5) == pytest.approx(library_epsilon(event, 1e-5, REPLACE), rel=1e-3)


@pytest.mark.parametrize(("rate", "steps", "noise"), SETTINGS)
def test_renyi_divergences_agree_from_above(rate, steps, noise):
    event = poisson_gaussian_event(noise, rate, steps)
    ours, looser = epsilon(event, 1e-5), rdp_epsilon(event, 1e-5)
    library = dpa.rdp.RdpAccountant([*range(2, 64), 128, 256]).compose(event).get_epsilon(1e-5)
    assert ours <= looser <= library * (1 + 1e-9)
    assert looser <= 1.5 * ours


def test_relations_that_cost_the_same():
    event = poisson_gaussian_event(1.5, 0.256, 16)
    assert epsilon(event, 1e-5, Neighbouring.ADD_REMOVE) == epsilon(event, 1e-5, ZERO)
    assert epsilon(event, 1e-5, Neighbouring.LOCAL) == replace_one_epsilon(event, 1e-5)


def test_replacing_costs_more_than_emptying_and_it_is_not_a_footnote():
    """With many steps at a large rate the replace-one epsilon is twice the other: 2.81 becomes 5.2 here."""
    event = poisson_gaussian_event(2.37, 0.25, 32)
    zero, replaced = epsilon(event, 1e-5), replace_one_epsilon(event, 1e-5)
    assert zero == pytest.approx(2.8, abs=0.05)
    assert 1.8 < replaced / zero < 2.1


def test_replace_one_is_within_group_privacy_of_two():
    """Emptying twice is replacing: delta grows by 1 + e^epsilon (Vadhan 2017, Lemma 2.2)."""
    event = poisson_gaussian_event(1.5, 0.256, 16)
    for eps in (2.0, 3.0, 4.0):
        assert delta_at(event, 2 * eps, Neighbouring.REPLACE_ONE) <= delta_at(event, eps) * (1 + math.exp(eps)) * 1.0001


@given(
    st.floats(min_value=0, max_value=2 * math.pi),
    st.floats(min_value=0, max_value=1),
    st.floats(min_value=0, max_value=1),
    st.sampled_from([(0.1, 0.5), (0.3, 1.0), (0.7, 2.0)]),
    st.floats(min_value=0, max_value=2),
)
@settings(max_examples=40)
def test_no_pair_in_the_clip_ball_is_worse_than_opposites(angle, long, short, setting, eps):
    """docs/proofs/accounting.md, on a grid in the plane: any x, x' in the ball against x = -x' on its rim."""
    rate, noise = setting
    axis = np.linspace(-1 - 6 * noise, 1 + 6 * noise, 161)
    cell = (axis[1] - axis[0]) ** 2
    x, y = np.meshgrid(axis, axis)

    def density(centre):
        kernel = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * noise**2)) / (2 * math.pi * noise**2)
        rest = np.exp(-(x**2 + y**2) / (2 * noise**2)) / (2 * math.pi * noise**2)
        return rate * kernel + (1 - rate) * rest

    def hockey_stick(one, other):
        return float(np.maximum(0, density(one) - math.exp(eps) * density(other)).sum() * cell)

    any_pair = hockey_stick((long, 0.0), (short * math.cos(angle), short * math.sin(angle)))
    assert any_pair <= hockey_stick((1.0, 0.0), (-1.0, 0.0)) + 1e-4


def test_one_replaced_step_against_integration():
    rate, noise = 0.3, 1.2
    event = poisson_gaussian_event(noise, rate, 1)
    for eps in (0.2, 0.5, 1.0):

        def excess(x, eps=eps):
            shared = (1 - rate) * stats.norm.pdf(x, 0, noise)
            one = shared + rate * stats.norm.pdf(x, 1, noise)
            return max(0.0, one - math.exp(eps) * (shared + rate * stats.norm.pdf(x, -1, noise)))

        exact = integrate.quad(excess, -15, 15, limit=400)[0]
        assert exact <= delta_at(event, eps, Neighbouring.REPLACE_ONE) <= exact * 1.001 + 1e-9


def test_mixed_plans_are_no_more_than_their_parts_added():
    gaussian, pure = poisson_gaussian_event(2.0, 0.1, 50), pure_event(0.2, 5)
    both = compose([gaussian, pure])
    assert max(epsilon(gaussian, 1e-5), epsilon(pure, 1e-5)) < epsilon(both, 1e-5) <= epsilon(gaussian, 1e-5) + 1.0


@pytest.mark.parametrize("rho", [1e-4, 0.01, 0.1, 1.0, 10.0])
def test_zcdp_against_the_classic_conversion_and_the_gaussian(rho):
    """At most rho + 2 sqrt(rho ln 1/delta) (Bun and Steinke 2016, Proposition 1.3), at least the Gaussian it covers."""
    for delta in (1e-5, 1e-9):
        found = epsilon(zcdp_event(rho), delta)
        assert epsilon(gaussian_event(math.sqrt(1 / (2 * rho))), delta) * 0.999 <= found
        assert found <= rho + 2 * math.sqrt(rho * math.log(1 / delta))


@given(st.floats(min_value=1e-3, max_value=20), st.floats(min_value=1.001, max_value=500))
def test_the_rho_of_a_pure_epsilon_bounds_every_order(eps, order):
    assert rdp(pure_event(eps), order) <= zcdp_rho(pure_event(eps)) * order * (1 + 1e-6) + 1e-9


@given(st.floats(min_value=0.3, max_value=10), st.floats(min_value=0.01, max_value=1), st.integers(2, 64))
def test_the_rho_of_a_sampled_gaussian_bounds_every_order(noise, rate, order):
    event = poisson_gaussian_event(noise, rate, 3)
    for relation in (ZERO, Neighbouring.REPLACE_ONE):
        assert rdp(event, order, relation) <= zcdp_rho(event, relation) * order * (1 + 1e-6) + 1e-9
    assert rdp(event, order) <= rdp(event, order, Neighbouring.REPLACE_ONE) * (1 + 1e-9) + 1e-12


def test_nothing_and_no_protection():
    assert epsilon(compose([]), 1e-5) == 0
    assert delta_at(compose([]), 0.0) == 0
    assert math.isinf(epsilon(compose([pure_event(1.0), none_event()]), 1e-5))
    assert delta_at(none_event(), 100.0) == 1
    assert math.isinf(zcdp_rho(none_event()))
    assert math.isinf(epsilon(gaussian_event(10.0), 0.0))


def test_tiny_deltas_leave_fourier_rounding_behind():
    event = poisson_gaussian_event(2.0, 0.1, 20)
    ladder = [epsilon(event, 10.0**-k) for k in (5, 9, 11, 13, 20, 40)]
    assert all(a < b < math.inf for a, b in itertools.pairwise(ladder))


def test_coarse_is_above_fine():
    event = poisson_gaussian_event(1.0, 0.02, 500)
    assert epsilon(event, 1e-5) <= coarse_epsilon(event, 1e-5) <= epsilon(event, 1e-5) * 1.05


def test_wrong_questions_are_refused():
    for delta in (-1e-9, 1.0, math.nan):
        with pytest.raises(InvalidEvent, match="delta must lie in"):
            epsilon(pure_event(1.0), delta)
    with pytest.raises(InvalidEvent, match="epsilon must be >= 0, got nan"):
        delta_at(pure_event(1.0), math.nan)
    with pytest.raises(InvalidEvent, match="order must be finite and above 1, got 1"):
        rdp(pure_event(1.0), 1)
    with pytest.raises(InvalidEvent, match="only Gaussian events say what replacing costs"):
        replace_one_epsilon(pure_event(1.0), 1e-5)


def test_noise_per_coordinate_uses_the_declared_batch():
    assert noise_per_coordinate(2.0, 0.256, 1000) == pytest.approx(2.0 / 256)
    assert noise_per_coordinate(2.0, 0.256, 1000, max_grad_norm=0.5) == pytest.approx(1.0 / 256)


@pytest.mark.parametrize(
    ("event", "eps"),
    [(gaussian_event(1.0), 12.0), (poisson_gaussian_event(1.0, 0.01, 10), 20.0), (zcdp_event(0.1), 2.0)],
)
def test_a_delta_beyond_the_reach_of_distributions_is_the_renyi_one(event, eps):
    """Below 1e-12, and for zCDP; epsilon at that delta is eps again."""
    found = delta_at(event, eps)
    assert 0 < found < 1e-3
    assert epsilon(event, found) == pytest.approx(eps, rel=1e-6)
    assert delta_at(event, eps + 1) < found


def test_little_noise_over_many_steps_still_has_a_loss_distribution():
    """Order 2 alone says 2751 where the distribution says 54 (sigma 0.29, rate 1/100, 1000 steps, delta 1/500)."""
    event = poisson_gaussian_event(0.29, 0.01, 1000)
    assert 53.9 <= epsilon(event, 1 / 500) <= 55
    assert epsilon(event, 1 / 500) <= replace_one_epsilon(event, 1 / 500) <= 2 * 55

"""Poisson draws with a cap: what truncation adds to delta, against exact cases and dp-accounting."""

import itertools
import math
from fractions import Fraction

import dp_accounting as dpa
import numpy as np
import pytest
from scipy import stats

from privkt.privacy import (
    delta_at,
    epsilon,
    poisson_gaussian_event,
    truncated_poisson_gaussian_event,
)
from privkt.privacy.accounting import rdp, zcdp_rho
from privkt.privacy.events import OVERFLOW_ERROR, leaves, overflow


def _event(noise=1.0, rate=0.1, steps=20, size=200, cap=45):
    return truncated_poisson_gaussian_event(noise, rate, steps, size=size, cap=cap)


@pytest.mark.parametrize(("size", "batch", "cap"), [(10, 3, 5), (7, 1, 1), (30, 15, 22), (40, 4, 25)])
def test_overflow_against_exact_fractions(size, batch, cap):
    rate = Fraction(batch, size)
    exact = sum(math.comb(size - 1, k) * rate**k * (1 - rate) ** (size - 1 - k) for k in range(cap, size))
    inside = sum(
        rate * math.comb(size - 1, k) * rate**k * (1 - rate) ** (size - 1 - k) * Fraction(cap, k + 1)
        for k in range(cap, size)
    )
    (leaf,) = leaves(_event(rate=batch / size, size=size, cap=cap))
    for found, sought in zip(overflow(leaf), (exact, inside / exact), strict=True):
        assert found == pytest.approx(float(sought), rel=OVERFLOW_ERROR / 10)


@pytest.mark.parametrize(("size", "batch", "cap"), [(10**6, 1000, 1200), (10**6, 1000, 1050), (10**8, 4096, 4500)])
def test_overflow_of_large_data_against_a_summed_tail(size, batch, cap):
    rate = batch / size
    first = math.lgamma(size) - math.lgamma(cap + 1) - math.lgamma(size - cap) + cap * math.log(rate)
    term = tail = math.exp(first + (size - 1 - cap) * math.log1p(-rate))
    for k in range(cap, cap + 3000):
        term *= (size - 1 - k) / (k + 1) * rate / (1 - rate)
        tail += term
    (leaf,) = leaves(_event(rate=rate, size=size, cap=cap))
    assert overflow(leaf)[0] == pytest.approx(tail, rel=OVERFLOW_ERROR / 2)


def _one_step(size, rate, cap, noise, contributions, eps):
    """Exact hockey sticks of one draw on a line: every subset, every order of dropping."""
    axis = np.linspace(-8 * noise - size, 8 * noise + size, 1001)
    densities = []
    for values in contributions:
        density = np.zeros_like(axis)
        for drawn in itertools.product((0, 1), repeat=size):
            chosen = [i for i, d in enumerate(drawn) if d]
            weight = rate ** len(chosen) * (1 - rate) ** (size - len(chosen))
            kept = list(itertools.combinations(chosen, min(cap, len(chosen))))
            for subset in kept:
                density += weight / len(kept) * stats.norm.pdf(axis, sum(values[i] for i in subset), noise)
        densities.append(density)
    p, q = densities
    step = axis[1] - axis[0]
    return max(np.maximum(0, a - math.exp(eps) * b).sum() * step for a, b in ((p, q), (q, p)))


@pytest.mark.parametrize("others", [(1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize("cap", [1, 3])
def test_one_step_of_four_units_is_covered(others, cap):
    event = truncated_poisson_gaussian_event(1.0, 0.4, 1, size=4, cap=cap)
    for eps in (0.2, 0.8):
        assert _one_step(4, 0.4, cap, 1.0, [(1, *others), (0, *others)], eps) <= delta_at(event, eps)
        assert _one_step(4, 0.4, cap, 1.0, [(1, *others), (-1, *others)], eps) <= delta_at(event, eps, "replace-one")


def test_poisson_alone_would_not_cover_it():
    """The planted fault: a capped draw accounted as if it had no cap. A record that comes puts another one out."""
    found = _one_step(4, 0.4, 1, 1.0, [(1, -1, -1, -1), (0, -1, -1, -1)], 4.0)
    assert found > 4 * delta_at(poisson_gaussian_event(1.0, 0.4, 1), 4.0)
    assert found <= delta_at(truncated_poisson_gaussian_event(1.0, 0.4, 1, size=4, cap=1), 4.0)


def test_a_generous_cap_costs_nothing_and_a_tight_one_something():
    plain = epsilon(poisson_gaussian_event(2.0, 0.1, 20), 1e-5)
    found = [epsilon(_event(noise=2.0, cap=cap), 1e-5) for cap in (20, 28, 40, 60)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.2 * plain
    assert found[-1] == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("relation", ["zero-out", "replace-one"])
def test_no_better_than_poisson_and_no_worse_than_losing_every_full_draw(relation):
    event, plain = _event(), poisson_gaussian_event(1.0, 0.1, 20)
    (leaf,) = leaves(event)
    for eps in (1.0, 3.0):
        least, most = delta_at(plain, eps, relation), delta_at(plain, eps, relation) + 20 * overflow(leaf)[0]
        assert least <= delta_at(event, eps, relation) <= most * (1 + 1e-9)


def test_full_draws_that_hardly_happen_are_given_up_whole():
    """Epsilon takes them as infinite losses where they add less than a thousandth of delta; delta_at does not."""
    event, delta = _event(cap=52), 1e-4
    (leaf,) = leaves(event)
    lost = 20 * overflow(leaf)[0]
    assert 1e-12 < lost < 1e-3 * delta
    plain = poisson_gaussian_event(1.0, 0.1, 20)
    assert epsilon(plain, delta) < epsilon(event, delta) == pytest.approx(epsilon(plain, delta - lost), rel=1e-6)
    assert delta_at(event, epsilon(event, delta)) <= delta


def test_a_cap_that_no_draw_exceeds_is_none():
    assert truncated_poisson_gaussian_event(1.0, 0.1, 20, size=30, cap=30) == poisson_gaussian_event(1.0, 0.1, 20)
    assert _event(cap=199) != poisson_gaussian_event(1.0, 0.1, 20)
    plain = epsilon(poisson_gaussian_event(1.0, 0.1, 20), 1e-5)
    assert epsilon(_event(cap=199), 1e-5) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("cap", [22, 34])
def test_the_library_agrees(cap):
    event = _event(noise=2.0, cap=cap)
    theirs = dpa.pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    assert epsilon(event, 1e-5) == pytest.approx(theirs, rel=5e-3)


def test_renyi_divergences_count_the_cut_draws():
    event, plain = _event(cap=28), poisson_gaussian_event(1.0, 0.1, 20)
    for order in (2, 8, 32):
        assert rdp(plain, order) < rdp(event, order) <= zcdp_rho(event) * order * (1 + 1e-9)
        assert rdp(event, order) <= rdp(event, order, "replace-one")
    assert zcdp_rho(event) == zcdp_rho(plain)

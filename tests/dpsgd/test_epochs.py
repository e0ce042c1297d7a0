"""Balls in bins and the public order: every unit once an epoch, uniform where it is secret, right after a resume."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privkt.dpsgd import Keys, RefusedTraining
from privkt.dpsgd import epochs as module
from privkt.dpsgd.epochs import BallsInBinsSampler, FixedOrderSampler

FALSE_ALARM = 1e-6
KEY = bytes(range(32))


def _epoch(sampler, epoch):
    return [sampler.draw(epoch * sampler.bins + i).tolist() for i in range(sampler.bins)]


@given(size=st.integers(1, 60), data=st.data())
def test_every_unit_is_in_one_step_of_each_epoch(size, data):
    bins = data.draw(st.integers(1, size))
    for sampler in (BallsInBinsSampler(size, bins, KEY), FixedOrderSampler(size, bins, 3, KEY)):
        for epoch in (0, 1, 7):
            draws = _epoch(sampler, epoch)
            assert sorted(i for drawn in draws for i in drawn) == list(range(size))
            assert all(drawn == sorted(drawn) for drawn in draws)


def test_steps_may_be_asked_for_in_any_order():
    forward, backward = (BallsInBinsSampler(50, 7, KEY) for _ in range(2))
    expected = {step: forward.draw(step).tolist() for step in range(21)}
    assert {step: backward.draw(step).tolist() for step in reversed(range(21))} == expected


def test_bins_are_uniform_and_independent_between_units_and_epochs():
    """Chi-square of all bins, of pairs of units and of pairs of epochs; false alarm 1e-6 in all."""
    size, bins, epochs = 40, 5, 600
    sampler = BallsInBinsSampler(size, bins, Keys.for_tests(2).sampler)
    found = np.zeros((epochs, size), dtype=int)
    for step in range(epochs * bins):
        found[step // bins, sampler.draw(step)] = step % bins
    tables = [
        np.bincount(found.ravel(), minlength=bins),
        np.bincount((found[:, :-1] * bins + found[:, 1:])[:, ::2].ravel(), minlength=bins**2),
        np.bincount((found[:-1:2] * bins + found[1::2]).ravel(), minlength=bins**2),
    ]
    for table in tables:
        assert stats.chisquare(table).pvalue > FALSE_ALARM / 3


def test_words_beyond_the_last_multiple_are_drawn_again():
    """With `below` just over 2^63 every other word is refused: the rest is uniform, no value twice as likely."""
    below = (1 << 63) + 1
    found = module._uniform(b"seed", 2000, below).astype(np.uint64)
    assert (found < np.uint64(below)).all()
    halves = np.bincount((found >> np.uint64(62)).astype(int), minlength=2)[:2]
    assert stats.binomtest(int(halves[0]), int(halves.sum()), 0.5).pvalue > FALSE_ALARM
    assert len(np.unique(found)) == 2000


def test_a_resume_inside_an_epoch_goes_on_with_its_bins_and_draws_the_next_anew():
    first = BallsInBinsSampler(200, 8, KEY)
    state = first.state(11)
    again = BallsInBinsSampler(200, 8, bytes(32), start=11, state=state)
    assert [again.draw(s).tolist() for s in range(11, 16)] == [first.draw(s).tolist() for s in range(11, 16)]
    assert [again.draw(s).tolist() for s in range(16, 24)] != [first.draw(s).tolist() for s in range(16, 24)]
    assert again.state(13) == state


def test_bins_drawn_anew_inside_an_epoch_would_take_units_twice():
    """The planted fault that the state is for."""
    first, other = BallsInBinsSampler(200, 8, KEY), BallsInBinsSampler(200, 8, bytes(32))
    parts = [first.draw(s) for s in range(4)] + [other.draw(s) for s in range(4, 8)]
    assert np.bincount(np.concatenate(parts), minlength=200).max() == 2


def test_the_state_tells_nothing_of_the_key_or_other_epochs():
    sampler = BallsInBinsSampler(20, 4, KEY)
    states = [sampler.state(step) for step in (1, 5, 9)]
    assert len({*states, KEY}) == 4
    assert sampler.state(2) == states[0]
    assert [sampler.state(step) for step in (0, 4, 8)] == [b""] * 3


@pytest.mark.parametrize(("start", "state"), [(3, b""), (3, bytes(5)), (4, bytes(32))])
def test_a_resume_without_its_state_is_refused(start, state):
    with pytest.raises(RefusedTraining, match=r"resume inside an epoch needs the 32 bytes of its state"):
        BallsInBinsSampler(20, 4, KEY, start=start, state=state)


def test_the_public_order_is_public_and_pieces_are_even():
    one, other = FixedOrderSampler(103, 10, 5, KEY), FixedOrderSampler(103, 10, 5, bytes(32))
    assert _epoch(one, 0) == _epoch(other, 0) == _epoch(one, 3)
    assert {len(drawn) for drawn in _epoch(one, 0)} == {10, 11}
    assert _epoch(FixedOrderSampler(103, 10, 6, KEY), 0) != _epoch(one, 0)
    assert one.state(7) == b""
    assert one.layer_seed(3) != other.layer_seed(3)
    assert math.isclose(np.mean([np.mean(drawn) for drawn in _epoch(one, 0)]), 51, abs_tol=2)


@pytest.mark.parametrize("bins", [0, 8])
def test_bins_outside_the_data_are_refused(bins):
    for make in (lambda: BallsInBinsSampler(7, bins, KEY), lambda: FixedOrderSampler(7, bins, 0, KEY)):
        with pytest.raises(RefusedTraining, match="between 1 and N = 7"):
            make()

"""User level: users are drawn, their rows come together, at most a public number of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.dpsgd import RefusedTraining
from privkt.dpsgd.sampling import PoissonSampler
from privkt.dpsgd.users import UserSampler, user_microbatches

KEY = bytes(range(32))
ROWS = [[0, 1, 2, 3, 4], [5], [], [6, 7], [8, 9, 10]]


def _sampler(rows=ROWS, **changes):
    base = PoissonSampler(len(rows), max(1, len(rows) // 2), KEY)
    return UserSampler(base, rows, **{"size": len(rows), "records_per_user": 3, "key": KEY, **changes})


def test_users_are_the_draw_of_the_base():
    base = PoissonSampler(5, 2, KEY)
    for step in range(20):
        assert _sampler().draw(step).users.tolist() == base.draw(step).tolist()


@pytest.mark.parametrize("choice", ["first", "random"])
def test_a_users_rows_come_together_and_no_more_than_the_cap(choice):
    sampler = _sampler(choice=choice)
    seen = set()
    for step in range(200):
        draw = sampler.draw(step)
        assert draw.rows.shape == draw.mask.shape == (len(draw.users), 3)
        for user, rows, mask in zip(draw.users, draw.rows, draw.mask, strict=True):
            counted = rows[mask].tolist()
            assert len(counted) == len(set(counted)) == min(3, len(ROWS[user]))
            assert set(counted) <= set(ROWS[user])
            if user == 0:
                seen.add(tuple(counted))
    assert (len(seen) == 1) == (choice == "first")
    assert choice == "random" or seen == {(0, 1, 2)}


def test_the_same_step_gives_the_same_rows():
    one, other = _sampler(choice="random").draw(4), _sampler(choice="random").draw(4)
    assert np.array_equal(one.rows, other.rows)


@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=12), users=st.integers(1, 4), step=st.integers(0, 50))
def test_microbatches_hold_whole_users_in_one_shape(counts, users, step):
    ends = np.cumsum([0, *counts])
    sampler = _sampler([list(range(a, b)) for a, b in itertools.pairwise(ends)])
    draw = sampler.draw(step)
    pieces = list(user_microbatches(draw, users))
    assert all(len(rows) == len(mask) == users * 3 for rows, mask in pieces)
    assert len(pieces) == max(1, -(-len(draw.users) // users))
    together = [row for rows, mask in pieces for row, counts_ in zip(rows, mask, strict=True) if counts_]
    assert together == draw.rows[draw.mask].tolist()


def test_an_empty_draw_is_one_masked_piece():
    sampler = _sampler([[0]] * 0 + [[i] for i in range(3)])
    empty = next(sampler.draw(step) for step in range(200) if not len(sampler.draw(step).users))
    assert list(user_microbatches(empty, 2)) == [([0] * 6, [False] * 6)]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: _sampler(size=4), "must be the 4 that were declared, got 5"),
        (lambda: _sampler(records_per_user=0), "records_per_user must be at least 1, got 0"),
        (lambda: _sampler(choice="last"), "choice must be 'first' or 'random', got 'last'"),
        (lambda: _sampler([[0, 1], [1, 2]]), "each row must belong to one user"),
    ],
)
def test_users_that_cannot_be_protected_are_refused(make, rule):
    with pytest.raises(RefusedTraining, match=rule):
        make()

"""The native kernels draw and enumerate what the numpy law says."""

import numpy as np
import pytest
from privkt_mechanisms.byte_table import LevelledTable, byte_table, levels_up_to
from privkt_mechanisms.exponential import Exponential
from privkt_mechanisms.laws import IntegerLaw
from privkt_mechanisms.native_law import NativeLaw
from privkt_mechanisms.permute_and_flip import FlipLaw
from privkt_mechanisms.weights import decaying_weights

from privkt.testing.statistics import CUT_OFF, chi_square_p


def law_of(words: int, sharpness: float, seed: int = 0) -> NativeLaw:
    table = byte_table("test", np.random.default_rng(seed).normal(size=(words, 5)))
    levelled = LevelledTable(table, levels_up_to(table.extremes[1]))
    return NativeLaw(levelled, decaying_weights(sharpness, levelled.levels.last, words))


@pytest.mark.parametrize("listed", [False, True])
def test_draws_have_the_laws_probabilities(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """130 words: the list of 64 neighbours leaves half of them to the tail."""
    law = law_of(130, 12.0)
    with monkeypatch.context() as patched:
        if not listed:
            patched.setattr(law, "size", 10**9)  # a list is never worth its price
            patched.delitem(vars(law.levelled.table), "index")  # and none was made
        drawn = law.draw(np.full(150_000, 7))
    assert (law.levelled.native.near is not None) == listed
    assert chi_square_p(drawn.tolist(), dict(enumerate(law.rows(np.array([7]))[0]))) > CUT_OFF
    assert len(set(law.draw_block(np.full(100, 7)).tolist())) > 10


@pytest.mark.parametrize("sharpness", [1.0, 12.0, 40.0])
def test_the_enumerated_epsilon_is_numpys(sharpness: float) -> None:
    law = law_of(70, sharpness, 2)
    slow = IntegerLaw(law.levelled, law.weights).epsilon_exact()
    assert slow - 1e-9 <= law.epsilon_exact() <= slow + 2**-20
    assert law.epsilon_exact() <= law.epsilon_range + 2**-20


def test_the_reference_is_never_what_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key stream is no secret: numpy's law draws from the system's bytes."""
    monkeypatch.setenv("PRIVKT_KERNELS", "reference")
    law = law_of(20, 5.0, 3)
    assert law.draw(np.arange(20)).shape == (20,)
    assert law.draw_block(np.arange(2)).shape == (2,)
    assert law.levelled.native is None


@pytest.mark.parametrize("mode", ["native", "reference"])
def test_permute_and_flip_draws_its_law(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernels, and by numpy where they are not private."""
    monkeypatch.setenv("PRIVKT_KERNELS", mode)
    law = law_of(25, 8.0, 5)
    flips = FlipLaw(law.levelled, law.weights)
    drawn = flips.draw(np.full(100_000, 11))
    assert (law.levelled.native is None) == (mode == "reference")
    assert chi_square_p(drawn.tolist(), dict(enumerate(flips.rows(np.array([11]))[0]))) > CUT_OFF


def test_a_mechanism_draws_by_the_kernels() -> None:
    mechanism = Exponential(np.random.default_rng(4).normal(size=(40, 3)), 6.0)
    ids = np.arange(40).reshape(4, 10)
    assert mechanism.sample_ids(ids).shape == (4, 10)
    assert mechanism.sample_ids(np.zeros((0,), np.int64)).shape == (0,)
    assert isinstance(mechanism.law, NativeLaw)
    assert mechanism.certificate.epsilon <= 6.0

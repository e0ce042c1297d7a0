"""Where a mechanism's noise comes from, and that each draw has noise of its own: part of MechanismSuite."""

from __future__ import annotations

import contextlib
import math
import pickle
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from privkt.contracts import Mechanism
from privkt.privacy import compose, epsilon
from privkt.testing.statistics import CUT_OFF, chi_square_p

_NEVER = 1e-9  # the probability of a coincidence that is taken for a fault
_MOST, _TRIED = 150, 40  # draws of a run, and of what says how long a run must be
_PAIRS, _CELLS = 300, 64
_SEED = 20_240_229


class NoiseChecks(ABC):
    """What holds of any mechanism's draws, whatever its law."""

    draws: int

    @abstractmethod
    def mechanisms(self) -> Sequence[Mechanism[Any, Any]]: ...

    @abstractmethod
    def inputs(self, mechanism: Mechanism[Any, Any]) -> Sequence[Any]: ...

    @abstractmethod
    def probabilities(self, mechanism: Mechanism[Any, Any], value: Any) -> Mapping[Hashable, float] | None: ...

    @abstractmethod
    def drawn(self, mechanism: Mechanism[Any, Any], value: Any) -> Iterable[Hashable]: ...

    def test_no_global_generator_steers_the_noise_or_moves(self) -> None:
        for mechanism in self.mechanisms():
            value = self.inputs(mechanism)[0]
            number = _telling(mechanism, value)
            runs = []
            for _ in range(2):
                with _seeded() as states:
                    before = states()
                    runs.append([mechanism.sample(value) for _ in range(number or 1)])
                    moved = states() != before
                assert not moved, "a draw moved a global generator: noise must come from a secure source"
            assert not number or runs[0] != runs[1], "seeding the global generators fixed the noise"

    def test_a_draw_says_nothing_of_the_next(self) -> None:
        mechanisms = self.mechanisms()
        for mechanism in mechanisms:
            value = self.inputs(mechanism)[0]
            law = mechanism.distribution(value)
            if law is None or len(law) > _CELLS:
                continue
            one_by_one = [mechanism.sample(value) for _ in range(_PAIRS * 2)]
            pairs = zip(one_by_one[::2], one_by_one[1::2], strict=True)
            expected: dict[Hashable, float] = {(y, z): p * q for y, p in law.items() for z, q in law.items()}
            p = chi_square_p(pairs, expected)
            assert p >= CUT_OFF / len(mechanisms), f"a draw and the next are not independent (p = {p:.2g})"

    def test_equal_parameters_are_one_law_before_and_after_draws(self) -> None:
        for mechanism, other, fresh, spare in zip(*(self.mechanisms() for _ in range(4)), strict=True):
            _same(mechanism, other, self.inputs(mechanism), "a mechanism made twice")
            value = self.inputs(mechanism)[0]
            if number := _telling(spare, value):
                runs = [[made.sample(value) for _ in range(number)] for made in (mechanism, other)]
                assert runs[0] != runs[1], "a mechanism made twice draws the same noise twice"
            _same(mechanism, other, self.inputs(mechanism), "mechanisms that have drawn")
            _same(mechanism, fresh, self.inputs(mechanism), "a mechanism that has drawn, and one that has not")

    def test_a_copy_has_the_same_law_and_noise_of_its_own(self) -> None:
        for mechanism in self.mechanisms():
            mechanism.sample(self.inputs(mechanism)[0])
            whole = pickle.dumps(mechanism)
            copies = [pickle.loads(whole), pickle.loads(whole), mechanism]
            for copy in copies[:2]:
                _same(mechanism, copy, self.inputs(mechanism), "a mechanism and its copy")
            if number := _telling(mechanism, self.inputs(mechanism)[0]):
                runs = [[copy.sample(self.inputs(mechanism)[0]) for _ in range(number)] for copy in copies]
                assert runs[0] != runs[1] != runs[2] != runs[0], "copies of a mechanism repeat each other's noise"

    def test_releases_add_up(self) -> None:
        for mechanism in self.mechanisms():
            guarantee = mechanism.guarantee
            delta = guarantee.delta if guarantee.is_private else 0.0
            once = epsilon(mechanism.event(), delta, guarantee.neighbouring)
            twice = epsilon(compose([mechanism.event()] * 2), delta, guarantee.neighbouring)
            if not guarantee.is_private:
                assert math.isinf(twice), "two releases of kind none are an infinite spend"
                continue
            # a sum of equal pure events is their sum; of others it is more than one
            assert twice > once or once == 0, "the second release must not be free"
            if guarantee.delta == 0:
                assert twice <= 2 * once * (1 + 1e-6), "two releases cost more than twice one"


def _telling(mechanism: Mechanism[Any, Any], value: Any) -> int:
    """How many draws two independent runs never have in common; 0 where so many would take too long."""
    drawn = Counter(mechanism.sample(value) for _ in range(_TRIED))
    # the chance that two draws are equal, as these say and with much to spare
    equal = 0.25 + 0.75 * sum((count / _TRIED) ** 2 for count in drawn.values())
    number = math.ceil(math.log(_NEVER) / math.log(equal)) if equal < 1 else _MOST + 1
    return number if number <= _MOST else 0


def _same(one: Mechanism[Any, Any], other: Mechanism[Any, Any], values: Sequence[Any], who: str) -> None:
    assert one.parameters() == other.parameters(), f"{who}: parameters differ"
    assert one.guarantee == other.guarantee, f"{who}: guarantees differ"
    assert one.event() == other.event(), f"{who}: events differ"
    for value in values:
        assert one.distribution(value) == other.distribution(value), f"{who}: laws differ"


@contextlib.contextmanager
def _seeded() -> Iterator[Callable[[], Hashable]]:
    """The generators that everybody shares, seeded alike and given back as they were; gives what reads their states."""
    import numpy as np
    import torch

    def states() -> Hashable:
        return random.getstate(), pickle.dumps(np.random.get_state()), bytes(torch.get_rng_state().numpy())

    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(_SEED)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
    try:
        yield states
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])

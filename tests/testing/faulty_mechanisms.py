"""Mechanisms with one planted fault each; test_suites.py demands that MechanismSuite finds it."""

import dataclasses
import random
import secrets
from fractions import Fraction

from privkt_mechanisms.geometric import Geometric
from privkt_mechanisms.randomised_response import RandomisedResponse

from privkt.privacy import Guarantee, Kind, RefusedInput, pure_event
from privkt.testing import MechanismSuite


class GeometricBase(MechanismSuite):
    name = "geometric"
    draws = 4000
    made = Geometric

    def mechanisms(self):
        return [self.made(Fraction(1, 2), lower=-3, upper=3)]

    def inputs(self, mechanism):
        return [0, 1]

    def outsiders(self, mechanism):
        return [self.canary, 1.5]


class TestSound(GeometricBase):
    pass


class HalfTheNoise(Geometric):
    def sample(self, value):
        return Geometric(self.epsilon * 2, lower=self.lower, upper=self.upper).sample(value)


class TestHalfTheNoise(GeometricBase):
    made = HalfTheNoise


class SensitivityOffByTwo(Geometric):
    def __init__(self, epsilon, **bounds):
        super().__init__(epsilon, **bounds)
        self.rate = 2 * self.epsilon


class TestSensitivityOffByTwo(GeometricBase):
    made = SensitivityOffByTwo


class CheapEvent(Geometric):
    def event(self):
        return pure_event(float(self.epsilon) / 2)


class TestCheapEvent(GeometricBase):
    made = CheapEvent


class Chatty(Geometric):
    def sample(self, value):
        if not isinstance(value, int):
            raise RefusedInput(f"geometric: a value must be an integer, got {value!r}")
        return super().sample(value)


class TestChatty(GeometricBase):
    made = Chatty


class Remembering(Geometric):
    last = None

    def sample(self, value):
        self.last = value
        return super().sample(value)

    def parameters(self):
        return {**super().parameters(), "last": self.last}


class TestRemembering(GeometricBase):
    made = Remembering


class Unproven(Geometric):
    @property
    def guarantee(self):
        return Guarantee.none("not proven")


class TestUnproven(GeometricBase):
    made = Unproven


class LosesTheCharge(Geometric):
    def release(self, value, *, data_set_id, charge=None):
        return super().release(value, data_set_id=data_set_id)


class TestLosesTheCharge(GeometricBase):
    made = LosesTheCharge


class FromTheGlobalGenerator(Geometric):
    """Noise that `random.seed` makes known."""

    def __init__(self, epsilon, **bounds):
        super().__init__(epsilon, **bounds)
        self._below = random.randrange


class TestFromTheGlobalGenerator(GeometricBase):
    made = FromTheGlobalGenerator


class CarriesItsKey(Geometric):
    """A generator of its own whose state is copied with it."""

    def __init__(self, epsilon, **bounds):
        super().__init__(epsilon, **bounds)
        self._below = random.Random(secrets.token_bytes(16)).randrange


class TestCarriesItsKey(GeometricBase):
    made = CarriesItsKey


class OneKeyForAll(Geometric):
    """The same noise for all who make it alike, and for every copy."""

    def __init__(self, epsilon, **bounds):
        super().__init__(epsilon, **bounds)
        self._below = random.Random(20).randrange


class TestOneKeyForAll(GeometricBase):
    made = OneKeyForAll


class Tires(Geometric):
    """After some draws the law is another one."""

    used = 0

    def sample(self, value):
        self.used += 1
        return super().sample(value)

    def distribution(self, value):
        return super().distribution(value + (self.used > 20))


class TestTires(GeometricBase):
    made = Tires


class TurnsAround(RandomisedResponse):
    """Every second answer is the other one, so that each by itself is likely enough."""

    pending = None

    def sample(self, value):
        if self.pending is not None:
            told, self.pending = self.pending, None
            return told
        told = super().sample(value)
        self.pending = self.labels[told == self.labels[0]]
        return told


class TestTurnsAround(MechanismSuite):
    name = "randomised_response"
    draws = 2000

    def mechanisms(self):
        return [TurnsAround(("a", "b"), "1/1000")]

    def inputs(self, mechanism):
        return mechanism.labels


class OnceCharged(Geometric):
    """Whoever has paid once pays next to nothing for the next release."""

    charged = False

    def event(self):
        paid, self.charged = self.charged, True
        return pure_event(1e-9) if paid else super().event()


class TestOnceCharged(GeometricBase):
    made = OnceCharged


class SquaredDistance(Geometric):
    """A guarantee by the square of the difference, which is no metric."""

    @property
    def guarantee(self):
        return dataclasses.replace(super().guarantee, kind=Kind.METRIC, metric="square", metric_scale=1.0)

    def distance(self, x, y):
        return float(x - y) ** 2


class TestSquaredDistance(GeometricBase):
    made = SquaredDistance

    def inputs(self, mechanism):
        return [0, 1, 2]


class PassesStrangersThrough(RandomisedResponse):
    def sample(self, value):
        return super().sample(value) if value in self.labels else value


class TestPassesStrangersThrough(MechanismSuite):
    name = "randomised_response"
    draws = 2000

    def mechanisms(self):
        return [PassesStrangersThrough(("a", "b"), 1)]

    def inputs(self, mechanism):
        return mechanism.labels


FOUND = {
    "TestSound": set(),
    "TestHalfTheNoise": {"test_draws_follow_the_distribution"},
    "TestSensitivityOffByTwo": {"test_no_pair_of_neighbours_exceeds_the_guarantee"},
    "TestCheapEvent": {"test_the_event_costs_what_the_guarantee_says"},
    "TestChatty": {"test_a_value_outside_the_domain_is_refused_without_showing_it"},
    "TestRemembering": {
        "test_parameters_are_public_json_and_do_not_change",
        "test_equal_parameters_are_one_law_before_and_after_draws",
    },
    "TestUnproven": {
        "test_the_event_costs_what_the_guarantee_says",
        "test_the_declaration_agrees_with_the_object",
        "test_releases_add_up",
    },
    "TestLosesTheCharge": {"test_a_release_carries_what_it_cost_and_whence_it_came"},
    "TestFromTheGlobalGenerator": {
        "test_no_global_generator_steers_the_noise_or_moves",
        "test_a_copy_has_the_same_law_and_noise_of_its_own",
    },
    "TestCarriesItsKey": {"test_a_copy_has_the_same_law_and_noise_of_its_own"},
    "TestOneKeyForAll": {
        "test_a_copy_has_the_same_law_and_noise_of_its_own",
        "test_equal_parameters_are_one_law_before_and_after_draws",
    },
    "TestTires": {
        "test_equal_parameters_are_one_law_before_and_after_draws",
        "test_draws_follow_the_distribution",
    },
    "TestTurnsAround": {"test_a_draw_says_nothing_of_the_next"},
    "TestOnceCharged": {
        "test_releases_add_up",
        "test_equal_parameters_are_one_law_before_and_after_draws",
        "test_a_copy_has_the_same_law_and_noise_of_its_own",
        "test_a_release_carries_what_it_cost_and_whence_it_came",
    },
    "TestSquaredDistance": {"test_a_metric_guarantee_has_a_metric", "test_the_declaration_agrees_with_the_object"},
    "TestPassesStrangersThrough": {"test_a_value_outside_the_domain_is_refused_without_showing_it"},
}

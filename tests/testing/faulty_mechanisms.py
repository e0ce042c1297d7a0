"""Mechanisms with one planted fault each; test_suites.py demands that MechanismSuite finds it."""

from fractions import Fraction

from privkt_mechanisms.geometric import Geometric
from privkt_mechanisms.randomised_response import RandomisedResponse

from privkt.privacy import Guarantee, RefusedInput, pure_event
from privkt.testing import MechanismSuite


class GeometricBase(MechanismSuite):
    name = "geometric"
    draws = 8000
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
    "TestRemembering": {"test_parameters_are_public_json_and_do_not_change"},
    "TestUnproven": {"test_the_event_costs_what_the_guarantee_says", "test_the_declaration_agrees_with_the_object"},
    "TestLosesTheCharge": {"test_a_release_carries_what_it_cost_and_whence_it_came"},
    "TestPassesStrangersThrough": {"test_a_value_outside_the_domain_is_refused_without_showing_it"},
}

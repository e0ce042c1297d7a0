"""Two-sided geometric noise: MechanismSuite and exact small cases."""

import math
from fractions import Fraction

import pytest

from privkt.plugins import get_manager
from privkt.privacy import InvalidGuarantee, RefusedInput
from privkt.testing import MechanismSuite


def made(*args, **kwargs):
    return get_manager().create("mechanism", "geometric", *args, **kwargs)


class TestGeometric(MechanismSuite):
    name = "geometric"
    draws = 6000

    def mechanisms(self):
        return [
            made(1),
            made("1/3", lower=0, upper=6),
            made(2, 3, neighbouring="replace-one", unit="user"),
            made(0.1, lower=-2, upper=2),
        ]

    def inputs(self, mechanism):
        return [0, 5]

    def neighbours(self, mechanism):
        near = range(1, mechanism.sensitivity + 1)
        return [(x, x + step * side) for x in (-4, 0, 5) for step in near for side in (1, -1)]

    def probabilities(self, mechanism, value):
        if (known := mechanism.distribution(value)) is not None:
            return known
        return {y: mechanism.probability(value, y) for y in range(value - 40, value + 41)}

    def outsiders(self, mechanism):
        return [self.canary, 1.0, None, True, self.canary.encode()]


class Scripted:
    """A source of uniform integers that enumerates every sequence of choices with its exact probability."""

    def __init__(self, choices):
        self.choices, self.probability, self.widths = choices, Fraction(1), []

    def __call__(self, n):
        step = len(self.widths)
        self.widths.append(n)
        self.probability /= n
        if step >= len(self.choices):
            raise LookupError
        return self.choices[step]


def enumerate_exactly(run, depth):
    """{result: probability} of `run(below)` over all choice sequences up to `depth`; unfinished ones are left out."""
    found, open_sequences = {}, [()]
    while open_sequences:
        choices = open_sequences.pop()
        source = Scripted(choices)
        try:
            result = run(source)
        except LookupError:
            if len(choices) < depth:
                open_sequences += [(*choices, i) for i in range(source.widths[-1])]
        else:
            found[result] = found.get(result, Fraction(0)) + source.probability
    return found


@pytest.mark.parametrize("gamma", [Fraction(0), Fraction(1, 2), Fraction(1)])
def test_bernoulli_exp_is_the_alternating_series(gamma):
    from privkt_mechanisms.exact import bernoulli_exp

    found = enumerate_exactly(lambda below: bernoulli_exp(gamma, below), depth=6)
    lost = 1 - sum(found.values())
    assert lost <= gamma**6 / math.factorial(6)
    assert float(found.get(True, 0)) <= math.exp(-gamma) + 1e-12
    assert math.exp(-gamma) <= float(found.get(True, 0) + lost) + 1e-12


def test_probability_is_the_closed_form():
    mechanism = made(math.log(2))
    assert mechanism.probability(3, 3) == pytest.approx(1 / 3, rel=1e-12)
    assert mechanism.probability(3, 5) == pytest.approx(1 / 12, rel=1e-12)


@pytest.mark.parametrize("value", [-9, 0, 2, 3, 50])
def test_the_clamped_distribution_is_the_folded_one(value):
    mechanism = made("1/2", 2, lower=0, upper=3)
    found = mechanism.distribution(value)
    wide = range(value - 400, value + 401)
    for output in range(4):
        folded = math.fsum(mechanism.probability(value, y) for y in wide if min(3, max(0, y)) == output)
        assert found[output] == pytest.approx(folded, abs=1e-12)


def test_one_bound_alone_clamps_too():
    assert all(made(0.01, lower=0).sample(0) >= 0 for _ in range(50))
    assert all(made(0.01, upper=0).sample(0) <= 0 for _ in range(50))
    assert made(1, lower=0).distribution(3) is None


def test_an_epsilon_of_a_binary_float_is_sampled_as_it_is():
    mechanism = made(0.1)
    assert mechanism.rate == Fraction(0.1)
    assert isinstance(mechanism.sample(10**30), int)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epsilon": 0}, "epsilon must be a finite number > 0"),
        ({"epsilon": 1, "sensitivity": 0}, "sensitivity must be an integer >= 1, got 0"),
        ({"epsilon": 1, "sensitivity": 1.5}, "sensitivity must be an integer >= 1, got 1.5"),
        ({"epsilon": 1, "lower": 0.5}, "lower must be an integer, got 0.5"),
        ({"epsilon": 1, "lower": 3, "upper": 3}, "lower must be below upper, got 3 and 3"),
    ],
)
def test_bad_parameters_are_refused(arguments, words):
    with pytest.raises(RefusedInput, match=words):
        made(**arguments)


def test_a_relation_must_be_a_known_one():
    with pytest.raises(InvalidGuarantee, match="neighbouring must be one of"):
        made(1, neighbouring="near")

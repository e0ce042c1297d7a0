"""MechanismSuite: what every mechanism must do, by enumeration, by counting draws, and by its own declarations."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest

from privkt.contracts import Mechanism
from privkt.plugins import PluginManager, Provision, get_manager
from privkt.plugins.types import MechanismSpec
from privkt.privacy import Kind, RefusedInput, epsilon
from privkt.testing.noise import NoiseChecks
from privkt.testing.statistics import CUT_OFF, chi_square_p, hockey_stick, largest_log_ratio, renyi

_SLACK = 1e-9
_FEW = 24
_ORDERS = (1.01, 1.5, 2.0, 4.0, 16.0, 64.0)


class MechanismSuite(NoiseChecks):
    """Subclass in a test module: `name` finds the plugin, the methods give parameters and inputs.

    Draws are fresh randomness: false-alarm rate 1e-6 a run of the suite, whatever the number of mechanisms and inputs.
    """

    name: str = ""
    draws: int = 20_000
    canary: str = "canary-7315"

    @abstractmethod
    def mechanisms(self) -> Sequence[Mechanism[Any, Any]]:
        """Mechanisms of different parameters, the default ones first."""

    @abstractmethod
    def inputs(self, mechanism: Mechanism[Any, Any]) -> Sequence[Any]:
        """Values worth enumerating: few, the extreme ones among them."""

    def neighbours(self, mechanism: Mechanism[Any, Any]) -> Iterable[tuple[Any, Any]]:
        """Pairs that the guarantee speaks of, in both directions; by default any two inputs (relation local)."""
        return permutations(self.inputs(mechanism), 2)

    def probabilities(self, mechanism: Mechanism[Any, Any], value: Any) -> Mapping[Hashable, float] | None:
        """`distribution`, or for infinitely many outputs those of a window; the rest is one cell."""
        return mechanism.distribution(value)

    def drawn(self, mechanism: Mechanism[Any, Any], value: Any) -> Iterable[Hashable]:
        """`draws` independent outputs of one value."""
        return (mechanism.sample(value) for _ in range(self.draws))

    def distance(self, x: Any, y: Any) -> float:
        """The distance of two inputs; only kind metric asks for it, where the mechanism has no method of that name."""
        raise TypeError(f"{type(self).__name__}: a metric guarantee needs `distance`; define it in the suite")

    def distance_of(self, mechanism: Mechanism[Any, Any], x: Any, y: Any) -> float:
        """The mechanism's own distance of two inputs, or the suite's."""
        own = getattr(mechanism, "distance", None)
        return float(own(x, y)) if own is not None else self.distance(x, y)

    def outsiders(self, mechanism: Mechanism[Any, Any]) -> Sequence[Any]:
        """Values that must be refused; those that are text hold `canary`, which no message may repeat."""
        return [self.canary]

    def manager(self) -> PluginManager:
        """Where the plugin is looked up."""
        return get_manager()

    @pytest.fixture
    def provision(self) -> Provision:
        return self.manager().find("mechanism", self.name)

    def test_probabilities_sum_to_one(self) -> None:
        for mechanism in self.mechanisms():
            for value in self.inputs(mechanism):
                found = mechanism.distribution(value)
                masses = list((found or self.probabilities(mechanism, value) or {}).values())
                assert all(0 <= mass <= 1 for mass in masses), "a probability lies outside [0, 1]"
                total = math.fsum(masses)
                if found is not None:
                    assert total == pytest.approx(1, abs=1e-12), "the distribution must sum to 1"
                assert total <= 1 + 1e-12

    def test_no_pair_of_neighbours_exceeds_the_guarantee(self) -> None:
        for mechanism in self.mechanisms():
            if not mechanism.guarantee.is_private:
                continue
            seen = 0
            for x, y in self.neighbours(mechanism):
                if mechanism.guarantee.kind is not Kind.METRIC:  # which compares any two, by their distance
                    assert mechanism.why_not_neighbours(x, y) is None, "neighbours are none by why_not_neighbours"
                p, q = self.probabilities(mechanism, x), self.probabilities(mechanism, y)
                if p and q:
                    seen += 1
                    self._compare(mechanism, x, y, p, q)
            assert seen, "no neighbours were enumerated: give `neighbours`, and `probabilities` where outputs are many"

    def _compare(
        self, mechanism: Mechanism[Any, Any], x: Any, y: Any, p: Mapping[Hashable, float], q: Mapping[Hashable, float]
    ) -> None:
        guarantee = mechanism.guarantee
        if guarantee.kind is Kind.APPROXIMATE:
            lost = hockey_stick(p, q, guarantee.epsilon)
            assert lost <= guarantee.delta * (1 + _SLACK), "delta by enumeration exceeds the guarantee"
            return
        if guarantee.kind is Kind.ZCDP:
            assert guarantee.rho is not None
            for order in _ORDERS:
                bound = guarantee.rho * order * (1 + _SLACK)
                assert renyi(p, q, order) <= bound, f"the Renyi divergence of order {order} exceeds rho times the order"
            return
        allowed = guarantee.epsilon
        if guarantee.kind is Kind.METRIC:
            assert guarantee.metric_scale is not None
            allowed *= self.distance_of(mechanism, x, y) / guarantee.metric_scale
        shared = p if mechanism.distribution(x) is not None else {o: p[o] for o in p if o in q}
        assert largest_log_ratio(shared, q) <= allowed + _SLACK, "epsilon by enumeration exceeds the guarantee"

    def test_draws_follow_the_distribution(self) -> None:
        cases = [(m, v) for m in self.mechanisms() for v in self.inputs(m)]
        tested = 0
        for mechanism, value in cases:
            expected = self.probabilities(mechanism, value)
            if expected is None:
                continue
            tested += 1
            p = chi_square_p(self.drawn(mechanism, value), expected)
            assert p >= CUT_OFF / len(cases), f"{self.draws} draws do not follow the stated probabilities (p = {p:.2g})"
        if not tested:
            pytest.skip("no distribution is stated: give `probabilities` in the suite if one is known")

    def test_a_metric_guarantee_has_a_metric(self) -> None:
        for mechanism in self.mechanisms():
            if mechanism.guarantee.kind is not Kind.METRIC:
                continue
            points = {value for pair in self.neighbours(mechanism) for value in pair} | set(self.inputs(mechanism))
            few = sorted(points, key=repr)[:_FEW]
            between = {(x, y): self.distance_of(mechanism, x, y) for x in few for y in few}
            for (x, y), apart in between.items():
                assert apart >= 0
                assert apart == between[y, x], "the distance is not symmetric"
                assert apart == 0 or x != y, "the distance of a value from itself is not 0"
                for z in few:
                    assert apart <= between[x, z] + between[z, y] + _SLACK, (
                        "the distance breaks the triangle inequality"
                    )

    def test_the_event_costs_what_the_guarantee_says(self) -> None:
        for mechanism in self.mechanisms():
            guarantee = mechanism.guarantee
            cost = epsilon(mechanism.event(), guarantee.delta if guarantee.is_private else 0.0, guarantee.neighbouring)
            if guarantee.is_private:
                assert cost <= guarantee.epsilon * (1 + 1e-6), "the event costs more than the guarantee says"
                assert cost >= guarantee.epsilon * (1 - 1e-6) or guarantee.kind is not Kind.PURE, (
                    "the event charges less than the pure guarantee says: one of the two is wrong"
                )
            else:
                assert math.isinf(cost), "guarantee none must come with `none_event`, an infinite spend"

    def test_the_declaration_agrees_with_the_object(self, provision: Provision) -> None:
        spec = provision.spec
        assert isinstance(spec, MechanismSpec)
        assert spec.summary, "the listing needs one line that says what it does"
        loaded = self.manager().load("mechanism", self.name)
        for mechanism in self.mechanisms():
            assert mechanism.name == spec.name
            assert mechanism.version
            assert mechanism.guarantee.kind == spec.guarantee
            if isinstance(loaded, type):
                assert isinstance(mechanism, loaded)
        default = self.mechanisms()[0].guarantee
        assert (default.unit, default.neighbouring) == (spec.unit, spec.neighbouring)
        assert not default.is_private or default.proof == spec.proof

    def test_parameters_are_public_json_and_do_not_change(self) -> None:
        for mechanism in self.mechanisms():
            before = json.dumps(mechanism.parameters(), allow_nan=False, sort_keys=True)
            for value in self.inputs(mechanism):
                mechanism.sample(value)
            assert json.dumps(mechanism.parameters(), allow_nan=False, sort_keys=True) == before

    def test_a_value_outside_the_domain_is_refused_without_showing_it(self) -> None:
        for mechanism in self.mechanisms():
            for value in self.outsiders(mechanism):
                with pytest.raises(RefusedInput) as caught:
                    mechanism.sample(value)
                assert self.canary not in str(caught.value)
                if isinstance(value, str) and value:
                    assert value not in str(caught.value)

    def test_a_release_carries_what_it_cost_and_whence_it_came(self) -> None:
        for mechanism in self.mechanisms():
            value = self.inputs(mechanism)[0]
            release = mechanism.release(value, data_set_id="a-public-id", charge="a-charge")
            assert release.guarantee == mechanism.guarantee
            assert release.event == mechanism.event()
            assert release.charge == "a-charge"
            origin = release.provenance
            assert (origin.mechanism, origin.version) == (mechanism.name, mechanism.version)
            assert origin.data_set_id == "a-public-id"
            assert dict(origin.details) == json.loads(json.dumps(dict(mechanism.parameters())))
            shape = mechanism.distribution(value)
            assert shape is None or release.payload in shape

"""The order of steps, roles and what a base method says: exact small cases."""

import pytest

from privkt.contracts import (
    MethodConfig,
    Outcome,
    Plan,
    PublicFacts,
    ServerSite,
    Side,
    StatisticPlan,
    TransferMethod,
    client_step,
    server_step,
)
from privkt.privacy import Budget, Guarantee, event_to_json, pure_event
from privkt.testing import MemoryState


class Base(TransferMethod):
    name = "base"

    @client_step
    def first(self, site):
        """Do the first thing."""

    @server_step(once=True)
    def second(self, site, received): ...

    def helper(self):
        """No step."""


class Derived(Base):
    @client_step
    def third(self, site, received):
        """Do a third thing. And more."""

    @server_step
    def second(self, site, received):
        """Do it otherwise."""


def test_steps_come_in_order_of_definition():
    steps = Base.steps()
    assert [(s.name, s.side, s.once) for s in steps] == [("first", Side.CLIENT, False), ("second", Side.SERVER, True)]
    assert [s.title for s in steps] == ["Do the first thing", "second"]


def test_an_overridden_step_keeps_its_place():
    assert [(s.name, s.once) for s in Derived.steps()] == [("first", False), ("second", False), ("third", False)]


def test_a_method_without_labels_says_so():
    method = Base(MethodConfig())
    assert method.plan(PublicFacts("a", 10, None), Budget(1.0, 1e-6)) == Plan()
    with pytest.raises(TypeError, match="method 'base' makes no model that predicts labels"):
        method.predict({}, Outcome(), ["x"], ["a", "b"])


def test_a_missing_role_names_those_there_are(tmp_path):
    site = ServerSite(models={}, state=MemoryState(), folder=tmp_path)
    with pytest.raises(KeyError, match="model role 'llm' is not in the config"):
        site.model("llm")
    assert not hasattr(site, "data")


def test_a_noisy_statistic_is_one_of_a_plans_spends():
    statistic = StatisticPlan("counts", "geometric", Guarantee("pure", 0.5), event_to_json(pure_event(0.5)))
    assert statistic.event() == pure_event(0.5)
    assert Plan(statistics=(statistic,)).spends == (statistic,)

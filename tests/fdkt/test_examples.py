from pathlib import Path

import pytest
from privkt_fdkt.config import FDKTConfig
from privkt_fdkt.method import FDKT

from privkt.config import load_config
from privkt.contracts import PublicFacts
from privkt.privacy import Budget, default_delta

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("fdkt-*.yaml"))


def test_both_examples_are_there():
    assert [path.name for path in EXAMPLES] == ["fdkt-agnews.yaml", "fdkt-reviews.yaml"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_sound_plan(path):
    config = load_config(path)
    method = FDKT(FDKTConfig.model_validate(config.method_config))
    (client,) = config.clients
    budget = Budget(config.budget.epsilon, config.budget.delta or default_delta(client.data.size))
    plan = method.plan(PublicFacts(client.name, client.data.size, client.data.labels), budget)
    assert plan.warnings == ()
    assert plan.trainings[0].steps >= 16
    assert set(config.models) <= {*method.client_roles, *method.server_roles}

"""One data set, one account: refused under a second name before any ledger is made, accepted when it is confirmed."""

import dataclasses

import pytest

from privkt.contracts import PerturbationPlan, Plan
from privkt.privacy import (
    BudgetExceeded,
    Certificate,
    DataChanged,
    Ledger,
    SameDataElsewhere,
    document_cost,
    event_to_json,
)
from privkt.runtime.accounts import check_clients, left_of, refusal_of
from privkt.runtime.local import LocalRuntime
from privkt.runtime.preflight import prepare

SAME = [f"private row {i}" for i in range(6)]


def renamed(config, name):
    (client,) = config.clients
    return config.model_copy(
        update={"clients": (client.model_copy(update={"data": client.data.model_copy(update={"name": name})}),)}
    )


def ledgers(tmp_path):
    return sorted(path.stem for path in (tmp_path / "state").rglob("*.sqlite3"))


def test_a_new_name_for_known_data_is_refused_before_its_ledger_is_made(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    LocalRuntime(config, tmp_path / "first", manager).run()
    other = renamed(config, "data-b")
    for call in (
        lambda: LocalRuntime(other, tmp_path / "second", manager).run(),
        lambda: left_of(prepare(other, manager).clients[0]),
    ):
        with pytest.raises(SameDataElsewhere, match=r"accounted for as data-a; .* say --new-name-confirmed"):
            call()
    assert ledgers(tmp_path) == ["data-a"]
    assert not (tmp_path / "second").exists()


def test_a_confirmed_new_name_is_recorded_with_its_charge(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    LocalRuntime(config, tmp_path / "first", manager).run()
    other = renamed(config, "data-b")
    result = LocalRuntime(other, tmp_path / "second", manager, same_data_confirmed=True).run()
    assert result.totals["a"].spent.epsilon == 1.0
    recorded = {
        name: [e.body["same_data_confirmed"] for e in Ledger.open(name).entries() if e.kind == "charge"]
        for name in ("data-a", "data-b")
    }
    assert recorded == {"data-a": [False], "data-b": [True]}
    LocalRuntime(other, tmp_path / "third", manager).run()  # the name is known by now


def test_a_confirmation_is_kept_for_a_run_that_is_cut_before_its_first_charge(toys, tmp_path, monkeypatch):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    LocalRuntime(config, tmp_path / "first", manager).run()
    other = renamed(config, "data-b")

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LocalRuntime, "_all_steps", cut)
        with pytest.raises(KeyboardInterrupt):
            LocalRuntime(other, tmp_path / "second", manager, same_data_confirmed=True).run()
    assert Ledger.open("data-b").charges() == ()
    # `privkt run --resume DIR`, as the interrupted run says
    assert LocalRuntime(other, tmp_path / "second", manager).run().totals["a"].spent.epsilon == 1.0
    (charge,) = [e for e in Ledger.open("data-b").entries() if e.kind == "charge"]
    assert charge.body["same_data_confirmed"]


def test_clients_with_the_same_rows_are_refused_before_anything_is_spent(toys, tmp_path):
    for client in "ab":
        toys.write_rows(tmp_path / f"{client}.jsonl", SAME)
    config, manager = toys.toy_config(tmp_path, clients=("a", "b")), toys.toy_manager()
    with pytest.raises(
        SameDataElsewhere, match=r"'a' and 'b': .* data-a and data-b are the same; .*new-name-confirmed"
    ):
        LocalRuntime(config, tmp_path / "run", manager).run()
    assert ledgers(tmp_path) == []
    assert not (tmp_path / "run").exists()
    result = LocalRuntime(config, tmp_path / "run", manager, same_data_confirmed=True).run()
    assert [t.spent.epsilon for t in result.totals.values()] == [1.0, 1.0]
    toys.write_rows(tmp_path / "b.jsonl", [*SAME[:5], "another"])
    check_clients(prepare(config, manager).clients)


def test_no_ledger_is_made_when_any_client_is_refused(toys, tmp_path):
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    LocalRuntime(config, tmp_path / "first", manager).run()
    toys.write_rows(tmp_path / "a.jsonl", SAME)
    both = toys.toy_config(tmp_path, clients=("b", "a"))
    with pytest.raises(DataChanged):
        LocalRuntime(both, tmp_path / "second", manager).run()
    assert ledgers(tmp_path) == ["data-a"]


def test_a_folder_in_use_is_refused_before_a_ledger_is_made(toys, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be new or empty; name another folder"):
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    assert ledgers(tmp_path) == []


def test_a_plan_beyond_the_cap_makes_no_ledger(toys, tmp_path, monkeypatch):
    from privkt.contracts import Plan, TrainingPlan
    from privkt.privacy import Guarantee

    guarantee = Guarantee("approximate", 3.0, 1e-5)
    training = TrainingPlan("p", 1.0, 0.1, 10, 1e-5, guarantee, 0.1)
    monkeypatch.setattr(toys.Toy, "plan", lambda self, facts, budget: Plan(trainings=(training,)))
    with pytest.raises(BudgetExceeded, match="must fit into the cap of epsilon = 2"):
        LocalRuntime(toys.toy_config(tmp_path), tmp_path / "run", toys.toy_manager()).run()
    assert ledgers(tmp_path) == []


@pytest.mark.parametrize("rule", ["basic", "zcdp"])
@pytest.mark.parametrize(("noise", "rate", "count"), [(12.0, 1.0, 40), (1.0, 0.01, 1), (4.0, 1.0, 1), (0.9, 1.0, 1)])
def test_a_new_ledger_is_asked_by_its_own_filter(toys, tmp_path, monkeypatch, rule, noise, rate, count):
    """What is said before the ledger is made is what the ledger would say."""
    from privkt.contracts import Plan, TrainingPlan
    from privkt.privacy import Guarantee, epsilon, poisson_gaussian_event

    event, delta = poisson_gaussian_event(noise, rate, 1), 2e-7
    training = TrainingPlan("p", noise, rate, 1, delta, Guarantee("approximate", epsilon(event, delta), delta), 0.1)
    monkeypatch.setattr(toys.Toy, "plan", lambda self, facts, budget: Plan(trainings=(training,) * count))
    config = toys.toy_config(tmp_path, budget={"epsilon": 4.0, "delta": 1e-5, "filter": rule})
    (client,) = prepare(config, toys.toy_manager()).clients
    ledger = Ledger.open_or_create(
        "throwaway", cap_epsilon=4.0, cap_delta=1e-5, size=6, filter=rule, state=tmp_path / "elsewhere"
    )
    if (refusal := refusal_of(ledger, client)) is None:
        assert left_of(client).epsilon == 4.0
    else:
        assert isinstance(refusal, BudgetExceeded)
        with pytest.raises(BudgetExceeded, match=f"by the {rule} filter"):
            left_of(client)
    if count == 40:
        assert (refusal is None) is (rule != "basic")


def perturbing(setup, epsilon, relation="local"):
    """The client's setup with a plan that perturbs 4 tokens a record."""
    cost = document_cost(Certificate(epsilon), 4)
    promise = dataclasses.replace(cost.guarantee, neighbouring=relation)
    plan = PerturbationPlan("perturb", "m", 4, epsilon, promise, event_to_json(cost.event))
    return dataclasses.replace(setup, plan=Plan(perturbations=(plan,)))


def test_a_planned_perturbation_is_weighed_like_a_training(toys, tmp_path):
    """A quarter of the cap for each of 4 tokens fits exactly once, a third never, and what is left is what is left."""
    config, manager = toys.toy_config(tmp_path), toys.toy_manager()
    (setup,) = prepare(config, manager).clients
    cap = setup.budget.epsilon
    assert left_of(perturbing(setup, cap / 4)).epsilon == pytest.approx(cap)
    with pytest.raises(BudgetExceeded, match="asks for"):
        left_of(perturbing(setup, cap / 3))
    LocalRuntime(config, tmp_path / "run", manager).run()
    ledger = Ledger.open("data-a")
    left = ledger.left().epsilon
    relation = str(ledger.neighbouring)
    for share, refused in ((0.99, False), (1.01, True)):
        made = perturbing(setup, share * left / 4, relation)
        assert (refusal_of(ledger, made) is not None) == refused

"""The release: what is charged is what was planned, every row pays alike, and nothing passes."""

import dataclasses
import math

import pytest
from fedcot_fakes import LABELS, rows
from privkt_fedcot.config import FedCoTConfig, PerturbationConfig
from privkt_fedcot.method import FedCoT
from privkt_fedcot.perturbing import PURPOSE, allocate, from_texts, to_texts, vocabulary_of
from privkt_fedcot.tasks import Part, Question, Task

from privkt.contracts import PublicFacts, Rows, Texts
from privkt.plugins import get_manager
from privkt.privacy import Budget, BudgetExceeded, Kind, Ledger, RefusedInput, pure_event
from privkt.privacy.ceiling import utility_ceiling

PARTS = (Part("question", 9), Part("choice", 1), Part("choice", 1), Part("choice", 1))


def settings(block, **changes):
    return FedCoTConfig.model_validate(block(**changes)).perturbation


def ledger_budget(epsilon=500.0, relation="local"):
    ledger = Ledger.open_or_create("q", cap_epsilon=epsilon, cap_delta=1e-3, size=24, neighbouring=relation)
    return Budget(epsilon, 1e-5, ledger=ledger, neighbouring=relation), ledger


@pytest.mark.parametrize("relation", ["local", "zero-out", "replace-one"])
def test_what_is_charged_is_what_was_planned_and_once(block, make_client, relation):
    budget, ledger = ledger_budget(relation=relation)
    method = FedCoT(FedCoTConfig.model_validate(block()))
    (planned,) = method.plan(PublicFacts("a", 24, LABELS), dataclasses.replace(budget, ledger=None)).perturbations
    site = make_client(budget=budget)
    release = method.perturb(site)
    (charge,) = ledger.charges()
    assert [e.body["purpose"] for e in ledger.entries() if e.kind == "charge"] == [PURPOSE]
    assert charge.planned == release.guarantee == planned.guarantee
    assert ledger.events() == [release.event] == [planned.event()]
    assert release.guarantee.neighbouring == relation
    assert release.charge == charge.id
    assert FedCoT(method.config).perturb(site).payload == release.payload  # a resumed step
    assert len(ledger.charges()) == 1


def test_a_full_ledger_stops_before_the_first_draw(block, make_client, monkeypatch):
    from privkt_mechanisms.exponential import Exponential

    budget, ledger = ledger_budget(epsilon=10.0)
    monkeypatch.setattr(Exponential, "sample_ids", lambda *_: pytest.fail("drew before it was paid for"))
    with pytest.raises(BudgetExceeded):
        FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client(budget=budget))
    assert not ledger.charges()


def test_a_mechanism_that_claims_more_than_its_certificate_is_refused_before_the_charge(
    block, make_client, monkeypatch
):
    from privkt_mechanisms.exponential import Exponential

    budget, ledger = ledger_budget()
    monkeypatch.setattr(Exponential, "event", lambda self: pure_event(100.0))
    with pytest.raises(RefusedInput, match="exponential: its certificate must cover its guarantee and its event"):
        FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client(budget=budget))
    assert not ledger.charges()


def test_every_row_has_the_same_number_of_draws_and_every_place(block, make_client, monkeypatch):
    from privkt_mechanisms.exponential import Exponential

    drawn, real = [], Exponential.sample_ids
    monkeypatch.setattr(Exponential, "sample_ids", lambda self, ids: drawn.append(ids.size) or real(self, ids))
    private = Rows(
        ("fox", "which colour has the fox of the house " * 9),
        ("A", "B"),
        (),
        {"choices": ('["red", "green"]', '["red red red", "green", "blue"]')},
    )
    release = FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client(private=private))
    assert sum(drawn) == 2 * (9 + 3)
    assert [len(q.choices) for q in from_texts(release.payload, Task(FedCoTConfig().task, LABELS))] == [3, 3]


def test_no_label_and_no_column_but_the_choices_cross(block, make_client):
    payload = FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client()).payload
    assert payload.label is None
    assert set(payload.columns) == {"choices"}


def test_other_labels_do_not_change_what_crosses(block, make_client, monkeypatch):
    """With known draws: two clients whose rows differ in their labels alone send the same bytes."""
    from privkt_mechanisms.exponential import Exponential

    monkeypatch.setattr(Exponential, "sample_ids", lambda self, ids: (ids + 1) % self.size)
    first = rows(0, 12)
    other = dataclasses.replace(first, label=tuple(reversed(first.label)))
    method = FedCoT(FedCoTConfig.model_validate(block()))
    sent = [method.perturb(make_client(name=n, private=r)).payload for n, r in (("a", first), ("b", other))]
    assert sent[0] == sent[1]


def test_equal_questions_of_two_rows_are_drawn_apart(block, make_client):
    first = rows(0, 1)
    twice = Rows(first.text * 40, first.label * 40, (), {"choices": first.columns["choices"] * 40})
    config = FedCoTConfig.model_validate(block(perturbation={"epsilon": 1.0}))
    assert len(set(FedCoT(config).perturb(make_client(private=twice)).payload.text)) > 30


def test_the_largest_epsilon_within_the_budget_is_taken(block):
    for delta, wanted in ((1e-12, 3.0), (1e-5, 3.0), (1e-5, 60.0)):
        config = settings(block, perturbation={"epsilon": None})
        found = allocate(config, PARTS, Budget(wanted, delta, neighbouring="local"))
        assert 0.98 * wanted <= found.cost.guarantee.epsilon <= wanted
        assert found.epsilons["question"] >= 0.999 * wanted / 12
    long = allocate(settings(block, perturbation={"epsilon": None}), [Part("question", 400)], Budget(3.0, 1e-5))
    assert long.epsilons["question"] > 2 * 3.0 / 400  # a delta pays for composing many small draws


def test_parts_may_have_unequal_shares_fixed_beforehand(block):
    config = settings(block, perturbation={"epsilon": 2.0, "shares": {"choice": 3.0}})
    found = allocate(config, PARTS, Budget(100.0, 1e-15, neighbouring="local"))
    assert found.epsilons == {"question": 2.0, "choice": 6.0}
    assert found.cost.guarantee.kind is Kind.PURE
    assert found.cost.guarantee.epsilon == 9 * 2.0 + 3 * 6.0
    with pytest.raises(RefusedInput, match="may name the parts that rows have"):
        allocate(
            settings(block, perturbation={"shares": {"context": 2.0}}), PARTS, Budget(9.0, 1e-5, neighbouring="local")
        )


def test_relations_that_hide_the_number_of_rows_are_refused(block):
    with pytest.raises(RefusedInput, match=r"budget\.neighbouring: perturbed questions show how many rows"):
        allocate(settings(block), PARTS, Budget(9.0, 1e-5, neighbouring="add-remove"))


def test_a_mechanism_certified_for_more_than_rows_pay_is_refused(block, make_client, monkeypatch):
    from privkt_mechanisms.exponential import Exponential

    honest = Exponential.certificate.fget
    nine = {"epsilon_exact": 9.0, "epsilon_range": 9.0}
    monkeypatch.setattr(Exponential, "certificate", property(lambda s: dataclasses.replace(honest(s), **nine)))
    with pytest.raises(RefusedInput, match=r"must keep the epsilon of 8 a token"):
        FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client())


def test_the_plan_says_the_price_of_a_row_and_the_ceiling(block):
    method = FedCoT(FedCoTConfig.model_validate(block()))
    plan = method.plan(PublicFacts("a", 24, LABELS), Budget(500.0, 1e-5, neighbouring="local"))
    (one,) = plan.perturbations
    assert (one.positions, one.epsilon_per_token, one.mechanism) == (12, 8.0, "exponential")
    assert plan.llm_requests == 24
    size = vocabulary_of(method.config.perturbation.vocabulary).size
    assert any(f"vocabulary of {size}:" in fact for fact in one.facts)
    assert any("protects against little" in warning for warning in plan.warnings)


def test_a_mechanism_that_draws_no_tokens_has_no_plan(block):
    method = FedCoT(FedCoTConfig.model_validate(block(perturbation={"mechanism": "geometric"})))
    with pytest.raises(RefusedInput, match=r"fedcot\.perturbation\.mechanism: mechanism 'geometric' draws no tokens"):
        method.plan(PublicFacts("a", 24, LABELS), Budget(500.0, 1e-5, neighbouring="local"))


@pytest.mark.parametrize("where", ["data", "evaluation.data"])
def test_a_column_that_rows_lack_is_missed_in_the_plan(block, where):
    method = FedCoT(FedCoTConfig.model_validate(block()))
    columns = {"columns": ("choices",), "held_out_columns": ("choices",)}
    budget = Budget(500.0, 1e-5, neighbouring="local")
    assert method.plan(PublicFacts("a", 24, LABELS, **columns), budget)
    columns["columns" if where == "data" else "held_out_columns"] = ("options",)
    with pytest.raises(
        RefusedInput, match=f"fedcot.task.choices: .* 'choices', and `columns` of {where} lists 'options'"
    ):
        method.plan(PublicFacts("a", 24, LABELS, **columns), budget)


def test_the_ceiling_is_that_of_randomised_response_and_no_mechanism_passes_it(block):
    import numpy as np

    vocabulary = vocabulary_of(settings(block).vocabulary)
    for epsilon in (0.5, 3.0, 8.0):
        most = utility_ceiling(epsilon, vocabulary.size)
        assert most == pytest.approx(math.exp(epsilon) / (math.exp(epsilon) + vocabulary.size - 1))
        mechanism = get_manager().create("mechanism", "exponential", vocabulary.vectors, epsilon)
        law = mechanism.probabilities(np.arange(vocabulary.size))
        assert law.diagonal().min() <= most


def test_exactly_one_vocabulary_is_named():
    for given in ({}, {"model": "a", "vectors": "b"}):
        with pytest.raises(RefusedInput, match="exactly one of model and vectors"):
            vocabulary_of(PerturbationConfig.model_validate({"vocabulary": given}).vocabulary)


def test_tables_of_another_task_are_refused():
    task = Task(FedCoTConfig().task, LABELS)
    assert from_texts(to_texts([Question("q", ("a", "", "b"))], task), task) == (Question("q", ("a", "", "b")),)
    with pytest.raises(RefusedInput, match="must have the columns of their task"):
        from_texts(Texts(("q",)), task)
    with pytest.raises(RefusedInput, match="row 1: choices must be a JSON list"):
        from_texts(Texts(("q",), None, {"choices": ("{}",)}), task)


@pytest.mark.parametrize("unit", ["user", "token"])
def test_a_rows_price_is_not_called_that_of_a_person_or_a_token(block, make_client, unit):
    budget = Budget(500.0, 1e-5, unit=unit, neighbouring="local")
    with pytest.raises(RefusedInput, match=rf"budget\.unit: a row is what pays.*record, document, got {unit}"):
        FedCoT(FedCoTConfig.model_validate(block())).plan(PublicFacts("a", 24, LABELS), budget)
    with pytest.raises(RefusedInput, match=r"budget\.unit"):
        FedCoT(FedCoTConfig.model_validate(block())).perturb(make_client(budget=budget))
